-- A store of schema version 1, as version 0.1.0 left it.
PRAGMA auto_vacuum = INCREMENTAL;
BEGIN;
-- One journal of one agent: all its records are named by (spool, lane, seq).
CREATE TABLE spool(
  id INTEGER PRIMARY KEY,
  node TEXT NOT NULL,
  spool_id BLOB NOT NULL,
  epoch INTEGER NOT NULL,
  boot_id TEXT NOT NULL,
  version TEXT NOT NULL,
  kernel TEXT NOT NULL,
  probes BLOB NOT NULL,        -- an encoded Coverage
  last_seen INTEGER NOT NULL,  -- ns since the Unix epoch, the collector's clock
  connected INTEGER NOT NULL DEFAULT 0,
  UNIQUE(node, spool_id)
);
CREATE TABLE lane(
  spool INTEGER NOT NULL REFERENCES spool(id) ON DELETE CASCADE,
  lane INTEGER NOT NULL,
  committed INTEGER NOT NULL,
  stored INTEGER NOT NULL DEFAULT 0,
  duplicates INTEGER NOT NULL DEFAULT 0,
  rejected INTEGER NOT NULL DEFAULT 0,
  gaps INTEGER NOT NULL DEFAULT 0,
  deleted INTEGER NOT NULL DEFAULT 0,
  elsewhere INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(spool, lane)
) WITHOUT ROWID;
CREATE TABLE event(
  id INTEGER PRIMARY KEY,      -- order of arrival
  spool INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  time INTEGER NOT NULL,       -- ns since the Unix epoch, the agent's clock
  kind TEXT NOT NULL,
  pod_namespace TEXT NOT NULL,
  pod_name TEXT NOT NULL,
  event BLOB NOT NULL,
  UNIQUE(spool, lane, seq)
);
CREATE INDEX event_time ON event(time);
CREATE INDEX event_kind ON event(kind, time);
CREATE INDEX event_pod ON event(pod_namespace, pod_name, time) WHERE pod_namespace <> '';
CREATE TABLE loss(
  spool INTEGER NOT NULL REFERENCES spool(id) ON DELETE CASCADE,
  epoch INTEGER NOT NULL,
  probe TEXT NOT NULL,
  lane INTEGER NOT NULL,
  reason TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY(spool, epoch, probe, lane, reason)
) WITHOUT ROWID;
CREATE TABLE counters(
  spool INTEGER NOT NULL REFERENCES spool(id) ON DELETE CASCADE,
  epoch INTEGER NOT NULL,
  probe TEXT NOT NULL,
  seen INTEGER NOT NULL,       -- the larger, the newer
  counters BLOB NOT NULL,      -- encoded ProbeCounters
  PRIMARY KEY(spool, epoch, probe)
) WITHOUT ROWID;
PRAGMA application_id = 1129074772;
PRAGMA user_version = 1;
INSERT INTO spool VALUES (1, 'node1', x'07070707070707070707070707070707', 3, 'boot', '0.1.0',
  '6.1.0', x'', 1795348800000000000, 0);
INSERT INTO lane VALUES (1, 1, 10, 2, 1, 1, 5, 0, 2);
INSERT INTO event VALUES (1, 1, 1, 3, 3, 1795348800000000003, 'unknown', '', '', x'');
INSERT INTO event VALUES (2, 1, 1, 9, 3, 1795348800000000009, 'unknown', '', '', x'');
COMMIT;
