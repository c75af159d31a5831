-- queue --
-- Names are interned: an index entry carries a small number. --
SELECT n FROM dl_queues WHERE name = ?;

-- add_queue --
-- At a queue's first write. --
INSERT INTO dl_queues (name) VALUES (?) RETURNING n;

-- bound_ids --
-- The guard's stored answer is wanted of a succeeded row; no other body is read. --
SELECT n, {columns}, CASE state WHEN 'succeeded' THEN body END FROM dl_rows WHERE queue = ? AND id IN ({marks});

-- bound_keys --
-- As bound_ids, by idempotency key. --
SELECT n, {columns}, CASE state WHEN 'succeeded' THEN body END FROM dl_rows WHERE queue = ? AND key IN ({marks});

-- fences --
-- What the machine decides on; no body is read. --
SELECT n, {columns} FROM dl_rows WHERE queue = ? AND id IN ({marks});

-- whole --
-- By number, for rows that an index named. --
SELECT n, {columns}, body FROM dl_rows WHERE n IN ({marks});

-- whole_by_id --
-- By id, for load. --
SELECT n, {columns}, body FROM dl_rows WHERE queue = ? AND id IN ({marks});

-- forgettable --
-- Ended rows past their keep, the oldest first. --
SELECT n, {columns} FROM dl_rows INDEXED BY dl_rows_keep
WHERE queue = ? AND keep_until_ms IS NOT NULL AND keep_until_ms <= ? ORDER BY keep_until_ms, id LIMIT ?;

-- lapsed --
-- Leases that ran out. --
SELECT n FROM dl_rows INDEXED BY dl_rows_running
WHERE queue = ? AND state = 'running' AND lease_ms <= ? ORDER BY lease_ms, id LIMIT ?;

-- expired --
-- Nothing ended by their expiry. --
SELECT n FROM dl_rows INDEXED BY dl_rows_expiry
WHERE queue = ? AND state = 'pending' AND expires_ms IS NOT NULL AND expires_ms <= ? ORDER BY expires_ms, id LIMIT ?;

-- delete_rows --
-- A row past its keep, or one that made room. --
DELETE FROM dl_rows WHERE n = ?;

-- add_failure --
-- Numbered within its row, so that the last one is found without a sort. --
INSERT INTO dl_failures
SELECT ?1, coalesce((SELECT max(seq) FROM dl_failures WHERE task = ?1), 0) + 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11;

-- surplus_failures --
-- What lies beyond the history that a letter keeps. --
SELECT task, seq, trace FROM dl_failures AS f
WHERE task IN ({marks}) AND seq <= (SELECT max(seq) FROM dl_failures WHERE task = f.task) - ?;

-- delete_failure --
-- One beyond the history. --
DELETE FROM dl_failures WHERE task = ? AND seq = ?;

-- wiped_traces --
-- How many uses each text loses. --
SELECT trace, count(*) FROM dl_failures WHERE task IN ({marks}) AND trace IS NOT NULL GROUP BY trace;

-- wipe_failures --
-- All of a row's failures. --
DELETE FROM dl_failures WHERE task IN ({marks});

-- last_failures --
-- One seek a row, and one step more for the note of an edit, which is no failure. --
SELECT f.task, f.trace, f.attempt, f.at_ms, f.duration_ms, f.error_type, f.message, f.fingerprint, f.worker, f.release, f.traceparent
FROM json_each(?) AS wanted CROSS JOIN dl_failures AS f
ON f.task = wanted.value AND f.seq = (SELECT seq FROM dl_failures
  WHERE task = wanted.value AND error_type <> 'deadletter.Edited' ORDER BY seq DESC LIMIT 1);

-- all_failures --
-- The history, oldest first. --
SELECT task, trace, attempt, at_ms, duration_ms, error_type, message, fingerprint, worker, release, traceparent
FROM dl_failures WHERE task IN ({marks}) ORDER BY task, seq;

-- texts --
-- Each distinct text once a step. --
SELECT n, text FROM dl_texts WHERE n IN ({marks});

-- trace --
-- A text is known by its hash. --
SELECT n FROM dl_traces WHERE queue = ? AND hash = ?;

-- add_trace --
-- Its uses are counted at the end of the step. --
INSERT INTO dl_traces (queue, hash, uses) VALUES (?, ?, 0) RETURNING n;

-- add_text --
-- Apart from its count. --
INSERT INTO dl_texts (n, text) VALUES (?, ?);

-- use_trace --
-- One per distinct text and step. --
UPDATE dl_traces SET uses = uses + ? WHERE n = ?;

-- drop_texts --
-- Nobody uses it any more. --
DELETE FROM dl_texts WHERE n = ?1 AND (SELECT uses FROM dl_traces WHERE n = ?1) <= 0;

-- drop_traces --
-- After its text. --
DELETE FROM dl_traces WHERE n = ? AND uses <= 0;

-- add_tally --
-- One per distinct key and step. --
INSERT INTO dl_tally VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET count = count + excluded.count;

-- add_counter --
-- One per distinct counter and step. --
INSERT INTO dl_counters VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET count = count + excluded.count;

-- last_event --
-- The newest event is never trimmed, so numbers go on. --
SELECT coalesce(max(seq), 0) FROM dl_events WHERE queue = ?;

-- waits --
-- Whether there is work at all: what another process committed may be of another queue.
SELECT EXISTS (SELECT 1 FROM dl_rows INDEXED BY dl_rows_waiting WHERE queue = ? AND state = 'pending');

-- add_event --
-- Numbered by the step. --
INSERT INTO dl_events VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- trim_events --
-- Kept in bounded number. --
DELETE FROM dl_events WHERE queue = ? AND seq <= ?;

-- trim_tally --
-- Types come and go; a zero says nothing. --
DELETE FROM dl_tally WHERE queue = ? AND count = 0;

-- events --
-- What a listener has not seen. --
SELECT seq, kind, at_ms, task_id, type, count, detail FROM dl_events WHERE queue = ? AND seq > ? ORDER BY seq LIMIT ?;

-- add_cause --
-- One per distinct cause and step. --
INSERT INTO dl_causes VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET count = count + excluded.count;

-- trim_causes --
-- Causes come and go, as types do. --
DELETE FROM dl_causes WHERE queue = ? AND count = 0;

-- causes --
-- Groups without reading letters. --
SELECT fingerprint, type, reason, release, count FROM dl_causes WHERE queue = ? AND count <> 0 LIMIT ?;

-- astray_causes --
-- The tally is kept by every version: what differs from it was not counted by one that knew no causes. --
SELECT type, reason, sum(n) AS off FROM (
  SELECT type, reason, sum(count) AS n FROM dl_causes WHERE queue = ? GROUP BY type, reason
  UNION ALL SELECT type, reason, -sum(count) FROM dl_tally WHERE queue = ? AND state = 'dead' GROUP BY type, reason
) GROUP BY type, reason HAVING off <> 0 LIMIT 1;

-- queues --
-- All of a file. --
SELECT n FROM dl_queues;

-- forget_causes --
-- Before they are counted anew. --
DELETE FROM dl_causes WHERE queue = ?;

-- count_causes --
-- Every letter once. --
INSERT INTO dl_causes
SELECT queue, coalesce(fingerprint, ''), type, coalesce(reason, ''), coalesce(release, ''), count(*)
FROM dl_rows WHERE queue = ? AND state = 'dead' GROUP BY 1, 2, 3, 4, 5;

-- tally --
-- Counts without reading rows. --
SELECT state, priority, type, reason, count FROM dl_tally WHERE queue = ? AND count <> 0;

-- counters --
-- Since the queue was made. --
SELECT name, type, detail, count FROM dl_counters WHERE queue = ?;

-- oldest_pending --
-- The head of an index. --
SELECT min(created_ms) FROM dl_rows INDEXED BY dl_rows_waiting WHERE queue = ? AND state = 'pending';

-- oldest_dead --
-- The head of an index. --
SELECT min(ended_ms) FROM dl_rows INDEXED BY dl_rows_dead WHERE queue = ? AND state = 'dead';

-- overdue --
-- Bounded: beyond that it only matters that there are many. --
SELECT count(*) FROM (SELECT 1 FROM dl_rows INDEXED BY dl_rows_pending
WHERE queue = ? AND priority = ? AND type = ? AND state = 'pending' AND due_ms < ? LIMIT ?);

-- judged_texts --
-- A search reads each distinct text once, and not too many at a time. --
SELECT t.n, holds(x.text, ?) FROM (SELECT n FROM dl_traces WHERE n > ? AND queue = ? ORDER BY n LIMIT ?) AS t
JOIN dl_texts AS x ON x.n = t.n ORDER BY t.n;
