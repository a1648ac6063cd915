BEGIN TRANSACTION;
CREATE TABLE blobs (name TEXT PRIMARY KEY, value BLOB NOT NULL, at REAL NOT NULL);
INSERT INTO "blobs" VALUES('benchmark:1',X'00016B657074',1009.0);
CREATE TABLE drafts (
  digest TEXT PRIMARY KEY, uid INTEGER NOT NULL, statements TEXT NOT NULL, effect TEXT NOT NULL,
  at REAL NOT NULL);
CREATE TABLE executions (
  id INTEGER PRIMARY KEY AUTOINCREMENT, execution_id INTEGER NOT NULL,
  benchmark_id INTEGER NOT NULL, model_id INTEGER NOT NULL, model_digest TEXT NOT NULL,
  dataset_id TEXT NOT NULL, purpose TEXT NOT NULL, key TEXT NOT NULL,
  state TEXT NOT NULL, step TEXT NOT NULL,
  reason TEXT NOT NULL, problem TEXT NOT NULL, ignore_errors INTEGER NOT NULL,
  partial INTEGER NOT NULL, source_id INTEGER NOT NULL, result BLOB NOT NULL,
  created_at REAL NOT NULL, updated_at REAL NOT NULL, finished_at REAL NOT NULL);
INSERT INTO "executions" VALUES(1,7,1,2,'sha256:m','north/1','BENCHMARK','sha256:k','RUNNING','infer','','',0,0,1,X'',1001.0,1002.0,0.0);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO "facts" VALUES('schema_version','1');
INSERT INTO "facts" VALUES('instance','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa');
INSERT INTO "facts" VALUES('cursor','5');
INSERT INTO "facts" VALUES('signer:spiffe://x/person/carla','sha256:e');
CREATE TABLE orders (
  execution_id INTEGER PRIMARY KEY, bundle BLOB NOT NULL, line INTEGER NOT NULL,
  envelope_digest TEXT NOT NULL, requested_by TEXT NOT NULL, local_id INTEGER NOT NULL,
  outcome TEXT NOT NULL, UNIQUE (envelope_digest, line));
INSERT INTO "orders" VALUES(7,X'62756E646C65',0,'sha256:order','spiffe://x/person/carla',1,'');
CREATE TABLE outbox (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, envelope_digest TEXT UNIQUE NOT NULL,
  envelope BLOB NOT NULL, kind TEXT NOT NULL, about TEXT NOT NULL, lane TEXT NOT NULL,
  state TEXT NOT NULL, refusal TEXT NOT NULL, receipt BLOB NOT NULL, id TEXT NOT NULL);
INSERT INTO "outbox" VALUES(1,'sha256:one',X'6F6E65','ResultSubmitted','result:b1m1d1','lane','waiting','["", "", ""]',X'','');
INSERT INTO "outbox" VALUES(2,'sha256:two',X'74776F','DatasetRegistered','dataset:1','lane','accepted','["", "", ""]',X'72656365697074','north/1');
CREATE TABLE reviews (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, local_id INTEGER NOT NULL,
  since REAL NOT NULL, decision TEXT NOT NULL, UNIQUE (kind, local_id));
INSERT INTO "reviews" VALUES(1,'RELEASE',1,1008.0,'');
CREATE TABLE steps (
  owner TEXT NOT NULL, name TEXT NOT NULL, record BLOB NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (owner, name));
INSERT INTO "steps" VALUES('dataset:1','prepare',X'0A077072657061726512087368613235363A63200339000000000000F83F',1003.0);
INSERT INTO "steps" VALUES('dataset:1','sanity_check',X'0A0C73616E6974795F636865636B12087368613235363A63200339000000000000F83F',1004.0);
INSERT INTO "steps" VALUES('dataset:1','statistics',X'0A0A7374617469737469637312087368613235363A63200339000000000000F83F',1005.0);
INSERT INTO "steps" VALUES('dataset:2','prepare',X'0A077072657061726512087368613235363A63200439000000000000F83F',1006.0);
INSERT INTO "steps" VALUES('execution:1','infer',X'0A05696E66657212087368613235363A63200239000000000000F83F',1007.0);
CREATE INDEX executions_key ON executions (key);
CREATE INDEX outbox_about ON outbox (about);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('executions',1);
INSERT INTO "sqlite_sequence" VALUES('outbox',2);
INSERT INTO "sqlite_sequence" VALUES('reviews',1);
COMMIT;
