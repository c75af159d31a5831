-- Dead letters by what they died of, counted as they come and go: one entry for a cause, however many letters it has.
CREATE TABLE dl_causes (
  queue INTEGER NOT NULL,
  fingerprint TEXT NOT NULL,
  type TEXT NOT NULL,
  reason TEXT NOT NULL,
  release TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (queue, fingerprint, type, reason, release)
) WITHOUT ROWID;
