-- What is known about each user at the cut-off, and whether they churned after it.
--
--   :as_of - :horizon_days - :window_days  <  window  <=  :as_of - :horizon_days  <  horizon  <=  :as_of
--                                                         (the cut-off)
--
-- One row for each user who paid in the window and is in an export of users. `churned` is 1 if no payment followed in
-- the horizon; nothing else depends on the horizon, and nothing on the day of the run. The exports of users are as of
-- the cut-off. No column is null: an unknown number has the value given in the comment above it, and a flag says so.
-- Sums are rounded: doubles added in a different order differ in their last digits.

WITH dated AS (
    -- After the cut-off everything but the user is null, so no aggregate below can see it.
    SELECT
        user_id,
        paid_on <= date_sub(:as_of, :horizon_days) AS known,
        CASE WHEN known THEN date_diff(date_sub(:as_of, :horizon_days), paid_on) END AS days_before,
        CASE WHEN known THEN seller_id END AS seller_id,
        CASE WHEN known THEN spent END AS spent,
        CASE WHEN known THEN coalesce(discount, 0) END AS discount,
        CASE WHEN known THEN segment END AS segment
    FROM payments
    WHERE paid_on > date_sub(:as_of, :horizon_days + :window_days) AND paid_on <= :as_of
),

behaviour AS (
    SELECT
        user_id,
        bool_and(known) AS churned,
        count(days_before) AS payments,
        count_if(days_before < 30) AS payments_last_30d,
        round(sum(spent), 2) AS spent,
        round(coalesce(sum(spent) FILTER (WHERE days_before < 30), 0), 2) AS spent_last_30d,
        round(coalesce(stddev_samp(spent), 0), 2) AS stddev_spent,
        max(spent) AS largest_spent,
        round(sum(discount), 2) AS discount,
        count_if(discount > 0) AS discounted,
        count(DISTINCT seller_id) AS distinct_sellers,
        min(days_before) AS days_since_last_payment,
        max(days_before) AS days_since_first_payment,
        count_if(segment = 'Online Payments') AS online,
        count_if(segment = 'QR') AS qr,
        count_if(segment = 'Point') AS point,
        count_if(segment = 'Services') AS services,
        count_if(segment = 'Transfers') AS transfers
    FROM dated
    GROUP BY user_id
    HAVING count(days_before) > 0
)

SELECT
    user_id,

    -- payments in the window
    CAST(payments AS INT) AS payments,
    CAST(payments_last_30d AS INT) AS payments_last_30d,
    payments_last_30d / payments AS share_last_30d,
    spent,
    spent_last_30d,
    spent / payments AS mean_spent,
    stddev_spent,
    largest_spent,
    discount,
    discount / greatest(spent, 0.01D) AS discount_share,
    discounted / payments AS discounted_share,
    CAST(distinct_sellers AS INT) AS distinct_sellers,
    days_since_last_payment,
    days_since_first_payment,
    online / payments AS online_share,
    qr / payments AS qr_share,
    point / payments AS point_share,
    services / payments AS services_share,
    transfers / payments AS transfers_share,
    CASE
        WHEN online + qr + point + services + transfers > 0 THEN greatest(
            named_struct('payments', online, 'segment', 'Online Payments'),
            named_struct('payments', qr, 'segment', 'QR'),
            named_struct('payments', point, 'segment', 'Point'),
            named_struct('payments', services, 'segment', 'Services'),
            named_struct('payments', transfers, 'segment', 'Transfers')
        ).segment
        ELSE 'unknown'
    END AS main_segment,

    -- the apps; a year if no log-in is known
    CAST(coalesce(used_payments_app, 0) AS INT) AS used_payments_app,
    CAST(coalesce(used_marketplace, 0) AS INT) AS used_marketplace,
    CAST(coalesce(used_marketplace_before, 0) AS INT) AS used_marketplace_before,
    least(greatest(coalesce(date_diff(date_sub(:as_of, :horizon_days), last_login_on), 365), 0), 365)
        AS days_since_login,

    -- the person; 40 if the age is not known
    CAST(coalesce(age, 40) AS INT) AS age,
    coalesce(gender, 'unknown') AS gender,
    coalesce(card_type, 'unknown') AS card_type,
    coalesce(city, 'unknown') AS city,

    -- funds; 0 without an account
    coalesce(balance, 0) AS balance,
    coalesce(balance_before, 0) AS balance_before,
    coalesce(balance - balance_before, 0) AS balance_change,
    least(coalesce(balance / nullif(balance_before, 0), 1), 100) AS balance_ratio,
    coalesce(investment, 'unknown') AS investment,

    -- the marketplace; 0 and a year if no purchase is known
    coalesce(marketplace_spent, 0) AS marketplace_spent,
    CAST(coalesce(marketplace_purchases, 0) AS INT) AS marketplace_purchases,
    least(greatest(coalesce(date_diff(date_sub(:as_of, :horizon_days), last_purchase_on), 365), 0), 365)
        AS days_since_purchase,

    -- yes or no
    CAST(payments_last_30d > 0 AS INT) AS paid_last_30d,
    CAST(discounted > 0 AS INT) AS has_discount,
    CAST(age IS NOT NULL AS INT) AS age_known,
    CAST(balance IS NOT NULL AS INT) AS has_account,
    CAST(coalesce(balance > balance_before, false) AS INT) AS balance_grew,
    CAST(coalesce(investment = 'Investing', false) AS INT) AS is_investing,
    CAST(marketplace_purchases IS NOT NULL AS INT) AS has_marketplace,

    CAST(churned AS INT) AS churned
FROM behaviour
INNER JOIN users USING (user_id)
