SELECT user_id, count(*) AS visits
FROM seen
GROUP BY BY user_id
