-- Names begin with dl_ so that an application may keep its own tables in the same file.
CREATE TABLE dl_queues (n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

-- Columns in the order of Row. Body last: a fence reads up to it and leaves its pages alone.
CREATE TABLE dl_rows (
  n INTEGER PRIMARY KEY,
  queue INTEGER NOT NULL,
  id TEXT NOT NULL,
  type TEXT NOT NULL,
  priority INTEGER NOT NULL,
  state TEXT NOT NULL,
  token TEXT,
  op TEXT,
  generation INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  lease_losses INTEGER NOT NULL,
  postpones INTEGER NOT NULL,
  replays INTEGER NOT NULL,
  started INTEGER NOT NULL,
  alone INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  since_ms INTEGER NOT NULL,
  due_ms INTEGER NOT NULL,
  ended_ms INTEGER,
  expires_ms INTEGER,
  lease_ms INTEGER,
  keep_until_ms INTEGER,
  keep_ms INTEGER,
  key TEXT,
  digest TEXT NOT NULL,
  owner TEXT,
  reason TEXT,
  fingerprint TEXT,
  error_type TEXT,
  worker TEXT,
  release TEXT,
  redact TEXT NOT NULL,
  format INTEGER NOT NULL,
  body BLOB
);

CREATE UNIQUE INDEX dl_rows_id ON dl_rows (queue, id);

CREATE UNIQUE INDEX dl_rows_key ON dl_rows (queue, key) WHERE key IS NOT NULL;

-- What a claim walks: it covers all that decides whether a row is taken.
CREATE INDEX dl_rows_pending ON dl_rows (queue, priority, type, due_ms, id, lease_losses, expires_ms, format)
  WHERE state = 'pending';

-- Suspects, so that one is found among a million innocents.
CREATE INDEX dl_rows_lost ON dl_rows (queue, priority, type, due_ms, id, lease_losses, expires_ms, format)
  WHERE state = 'pending' AND lease_losses > 0;

CREATE INDEX dl_rows_waiting ON dl_rows (queue, created_ms, id) WHERE state = 'pending';

CREATE INDEX dl_rows_expiry ON dl_rows (queue, expires_ms) WHERE state = 'pending' AND expires_ms IS NOT NULL;

CREATE INDEX dl_rows_running ON dl_rows (queue, lease_ms) WHERE state = 'running';

CREATE INDEX dl_rows_done ON dl_rows (queue, created_ms, id) WHERE state = 'succeeded';

CREATE INDEX dl_rows_keep ON dl_rows (queue, keep_until_ms) WHERE keep_until_ms IS NOT NULL;

CREATE INDEX dl_rows_dead ON dl_rows (queue, ended_ms, id) WHERE state = 'dead';

CREATE INDEX dl_rows_dead_priority ON dl_rows (queue, priority, ended_ms, id) WHERE state = 'dead';

CREATE INDEX dl_rows_dead_type ON dl_rows (queue, type, ended_ms, id) WHERE state = 'dead';

CREATE INDEX dl_rows_dead_fingerprint ON dl_rows (queue, fingerprint, ended_ms, id) WHERE state = 'dead';

CREATE INDEX dl_rows_dead_reason ON dl_rows (queue, reason, ended_ms, id) WHERE state = 'dead';

CREATE TABLE dl_failures (
  task INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  trace INTEGER,
  attempt INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  duration_ms INTEGER,
  error_type TEXT NOT NULL,
  message TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  worker TEXT,
  release TEXT,
  PRIMARY KEY (task, seq)
) WITHOUT ROWID;

-- Equal tracebacks are kept once per queue. Texts stand apart, so that counting their uses rewrites no text; a number
-- is never given twice, so that a search may remember which texts it has read.
CREATE TABLE dl_traces (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  queue INTEGER NOT NULL,
  hash BLOB NOT NULL,
  uses INTEGER NOT NULL,
  UNIQUE (queue, hash)
);

CREATE TABLE dl_texts (n INTEGER PRIMARY KEY, text TEXT NOT NULL);

CREATE TABLE dl_tally (
  queue INTEGER NOT NULL,
  state TEXT NOT NULL,
  priority INTEGER NOT NULL,
  type TEXT NOT NULL,
  reason TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (queue, state, priority, type, reason)
) WITHOUT ROWID;

CREATE TABLE dl_counters (
  queue INTEGER NOT NULL,
  name TEXT NOT NULL,
  type TEXT NOT NULL,
  detail TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (queue, name, type, detail)
) WITHOUT ROWID;

CREATE TABLE dl_events (
  queue INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  kind TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  task_id TEXT,
  type TEXT,
  count INTEGER NOT NULL,
  detail TEXT NOT NULL,
  PRIMARY KEY (queue, seq)
) WITHOUT ROWID;
