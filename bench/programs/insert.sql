-- SPDX-License-Identifier: MIT
CREATE TABLE item(id INTEGER PRIMARY KEY, part INTEGER, name TEXT, price REAL);
CREATE INDEX item_part ON item(part, price);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
INSERT INTO item SELECT i, i * 7919 % 1013, printf('item %06d of %d', i, i * 31 % 977), i * 0.25 FROM n;
COMMIT;
SELECT count(*), sum(price) FROM item;
