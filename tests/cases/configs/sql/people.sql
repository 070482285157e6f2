-- Its columns are known to lint.
SELECT user_id, count(*) AS visits FROM seen WHERE day <= :as_of GROUP BY user_id
