-- SPDX-License-Identifier: MIT
SELECT part, count(*), sum(price), max(name) FROM item GROUP BY part ORDER BY 3 DESC LIMIT 3;
SELECT count(*) FROM item WHERE name LIKE '%77%of%';
SELECT count(*), sum(a.price - b.price) FROM item a JOIN item b ON a.part = b.part WHERE a.id < 1500;
SELECT substr(name, -3) s, count(DISTINCT part) FROM item GROUP BY s ORDER BY 2 DESC, s LIMIT 3;
PRAGMA integrity_check;
