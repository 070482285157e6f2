-- One row for each user in any of the four exports; what an export does not know about a user is null.
SELECT
    user_id,
    used_payments_app,
    used_marketplace,
    used_marketplace_before,
    last_login_on,
    age,
    gender,
    card_type,
    city,
    balance,
    balance_before,
    investment,
    marketplace_spent,
    last_purchase_on,
    marketplace_purchases
FROM active_user
FULL OUTER JOIN demographics USING (user_id)
FULL OUTER JOIN funds USING (user_id)
FULL OUTER JOIN marketplace USING (user_id)
