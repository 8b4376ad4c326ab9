-- Fills an empty, migrated database with :jobs jobs over :days days, made by the database itself. database.py runs it.
-- 4 of 5 series get a job, each with 1 attempt (some 2), 2 results, 2 deliveries and 10 audit events.
-- The last 40 jobs are open, 1 % failed, 0.5 % were canceled, 0.02 % of the deliveries failed.
-- The first 100 series are of another modality, model and destination, and the first 100 actions of another person:
-- rare and long ago, what a list that is sorted by time and filtered finds last.

CREATE TABLE numbers (n BIGINT PRIMARY KEY);

INSERT INTO numbers
WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < {jobs} + {jobs} / 4)
SELECT n FROM up;

INSERT INTO association (id, calling_ae, called_ae, peer_address, started_at, ended_at, end_reason, stored)
SELECT ID(n, 1), 'CT' || (n % 6), 'AINODE', '10.0.0.' || (n % 6), TIME(n, -30), TIME(n, -10), 'released', 2 FROM numbers;

INSERT INTO study (id, study_instance_uid, patient_id, accession_number, study_date, first_received_at)
SELECT ID(n, 2), '1.2.840.99999.1.' || n, 'P' || (n / 3), 'A' || n,
    CAST(20240001 + (1 + n * 12 / ({jobs} + {jobs} / 4 + 1)) * 100 + n % 28 AS VARCHAR(8)), TIME(n, -30)
FROM numbers;

INSERT INTO series (
    id, study_id, series_instance_uid, modality, series_description, source_ae, scanner, state, revision, instance_count,
    first_received_at, last_received_at, settle_at, closed_at, close_reason, verdict, no_job_reason
)
SELECT
    ID(n, 3), ID(n, 2), '1.2.840.99999.2.' || n, CASE WHEN n <= 100 THEN 'MR' ELSE 'CT' END,
    'CHEST 1.0 LUNG', 'CT' || (n % 6), 'scanner ' || (n % 6),
    CASE WHEN n > {jobs} + {jobs} / 4 - 5 THEN 'receiving' ELSE 'complete' END, 1, 2, TIME(n, -30), TIME(n, -10),
    TIME(n, 20), TIME(n, 20), 'quiet for 30 s', '{{"slices": 2}}',
    CASE WHEN n > {jobs} THEN 'no rule matched: rule chest_ct did not match: Modality is CT: no, MR' END
FROM numbers;

INSERT INTO instance (
    series_id, association_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, size, digest, received_at,
    revision, header
)
SELECT
    ID(n, 3), ID(n, 1), '1.2.840.99999.3.' || n || '.' || k, '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1',
    'instances/20260101-00/' || n || '.' || k, 526000, '{digest}', TIME(n, -20), 1,
    '{{"Modality": "CT", "InstanceNumber": 1, "ImagePositionPatient": ["-200", "-180", "-312.5"], "SliceThickness": "1"}}'
FROM numbers CROSS JOIN (SELECT 1 AS k UNION ALL SELECT 2) two;

INSERT INTO job (
    id, series_id, series_revision, rule, model, model_version, run_no, destinations, slices, source_ae, scanner, priority,
    state, attempt, max_attempts, created_at, started_at, finished_at, error, report_to, failure
)
SELECT
    ID(n, 4), ID(n, 3), 1, 'chest_ct',
    CASE WHEN n <= 100 THEN 'old_mr' WHEN n % 4 = 0 THEN 'chest_ct' ELSE 'lung_ct' END, '1', 1, '["pacs"]', '[]',
    'CT' || (n % 6), 'scanner ' || (n % 6), 10,
    CASE
        WHEN n > {jobs} - 38 THEN 'scheduled' WHEN n > {jobs} - 40 THEN 'in progress'
        WHEN n % 100 = 0 THEN 'failed' WHEN n % 200 = 1 THEN 'canceled' ELSE 'completed'
    END,
    CASE WHEN n > {jobs} - 38 THEN 0 ELSE 1 + CASE WHEN n % 50 = 0 THEN 1 ELSE 0 END END, 3, TIME(n, 20),
    CASE WHEN n <= {jobs} - 38 THEN TIME(n, 25 + n * 7919 % 20011 / 1000.0) END,
    CASE WHEN n <= {jobs} - 40 THEN TIME(n, 60 + n % 97 + n * 7919 % 40009 / 1000.0) END,
    CASE WHEN n % 100 = 0 THEN 'The model ran out of memory (' || (n % 7) || ').' END, '["pacs"]',
    CASE WHEN n % 100 = 0 THEN 'failed' END
FROM numbers WHERE n <= {jobs};

INSERT INTO job_attempt (job_id, n, executor_id, model_digest, started_at, ended_at, outcome, steps_s)
SELECT
    ID(n, 4), k, 'gpu1/work-' || (n % 2) || '/1', '{digest}', TIME(n, 20 + 5 * k), TIME(n, 60 + n % 97),
    CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'completed' END,
    '{{"read": 0.9, "preprocess": 3.1, "infer": 21.4, "postprocess": 2.0, "measure": 0.4, "seg": 2.2, "sr": 0.1}}'
FROM numbers CROSS JOIN (SELECT 1 AS k UNION ALL SELECT 2) two
WHERE n <= {jobs} - 38 AND (k = 1 OR n % 50 = 0);

INSERT INTO result (
    id, job_id, kind, sop_class_uid, sop_instance_uid, series_instance_uid, transfer_syntax_uid, path, size, sha256,
    summary, created_at
)
SELECT
    ID(n, 4 + k), ID(n, 4), CASE WHEN k = 1 THEN 'seg' WHEN n <= 100 THEN 'pm' ELSE 'sr' END, '1.2.840.10008.5.1.4.1.1.66.4',
    '1.2.840.99999.4.' || n || '.' || k, '1.2.840.99999.5.' || n || '.' || k, '1.2.840.10008.1.2.1',
    'results/' || ID(n, 4) || '/' || k, 700000, '{digest}', '{{"segments": []}}', TIME(n, 60 + n % 97)
FROM numbers CROSS JOIN (SELECT 1 AS k UNION ALL SELECT 2) two
WHERE n <= {jobs} - 40 AND n % 100 <> 0 AND n % 200 <> 1;

INSERT INTO delivery (
    id, result_id, job_id, destination, position, state, attempt, created_at, asked_at, next_attempt_at, finished_at,
    last_status, last_error
)
SELECT
    ID(n, 6 + k), ID(n, 4 + k), ID(n, 4), CASE WHEN n <= 100 THEN 'old_pacs' ELSE 'pacs' END, k - 1,
    CASE WHEN n > {jobs} - 100 THEN 'waiting' WHEN n % 5000 = 7 THEN 'failed' ELSE 'delivered' END, 1,
    TIME(n, 60 + n % 97), TIME(n, 60 + n % 97), CASE WHEN n > {jobs} - 100 THEN TIME(n, 200) END,
    CASE WHEN n <= {jobs} - 100 THEN TIME(n, 62 + n % 97) END, CASE WHEN n % 5000 = 7 THEN 49152 ELSE 0 END,
    CASE WHEN n % 5000 = 7 THEN 'pacs answered 0xC000 (cannot understand)' END
FROM numbers CROSS JOIN (SELECT 1 AS k UNION ALL SELECT 2) two
WHERE n <= {jobs} - 40 AND n % 100 <> 0 AND n % 200 <> 1;

INSERT INTO proof (delivery_id, destination, attempt, state, since, looks, asked, ended_at)
SELECT d.id, d.destination, 1, 'proven', d.finished_at, 1, 1, d.finished_at FROM delivery d WHERE d.state = 'delivered';

INSERT INTO delivery_attempt (delivery_id, n, executor_id, started_at, ended_at, outcome, status)
SELECT d.id, 1, 'gpu1/deliver-0/1', d.created_at, d.finished_at, d.state, d.last_status
FROM delivery d WHERE d.state IN ('delivered', 'failed');

INSERT INTO audit_event (at, event, actor, association_id, series_id, job_id, delivery_id, detail, chain_no, chain_hash)
SELECT
    TIME(n, at), event,
    CASE WHEN event LIKE 'operator%' THEN 'operator anna' WHEN event LIKE 'queue%' THEN 'user otto' ELSE 'node' END,
    CASE WHEN at < 0 THEN ID(n, 1) END, CASE WHEN at > -30 THEN ID(n, 3) END, CASE WHEN at >= 20 THEN ID(n, 4) END,
    CASE WHEN at >= 60 THEN ID(n, 6 + at % 2) END,
    '{{"from": "CT1", "reason": "the calling AE title is unknown", "revision": 1, "closed": "quiet for 30 s", "slices": 2, "model": "lung_ct", "version": "1", "rule": "chest_ct", "priority": "routine", "destinations": ["pacs"]}}',
    row_number() OVER (), '{digest}'
FROM numbers CROSS JOIN (
    SELECT -20 AS at, 'series started' AS event UNION ALL SELECT 18, 'series complete' UNION ALL
    SELECT 19, 'series routed' UNION ALL SELECT 20, 'job scheduled' UNION ALL SELECT 25, 'attempt started' UNION ALL
    SELECT 59, 'job completed' UNION ALL SELECT 60, 'delivery started' UNION ALL SELECT 61, 'delivery started' UNION ALL
    SELECT 62, 'delivered' UNION ALL SELECT 63, 'delivered' UNION ALL
    SELECT -31, 'association rejected' UNION ALL SELECT 30, 'operator asked for a retry' UNION ALL
    SELECT -32, 'queue paused'
) events
WHERE n <= {jobs} AND (at <> -31 OR n % 1000 = 0) AND (at <> 30 OR n % 1000 = 1) AND (at <> -32 OR n <= 100);

INSERT INTO node (executor_id, host, slot, role, pid, version, state, started_at, beat_at)
SELECT 'gpu1/work-' || (n % 2) || '/' || n, 'gpu1', '0', 'work', n, '1', CASE WHEN n > 2 THEN 'dead' ELSE 'alive' END,
    TIME({jobs}, 0), TIME({jobs}, 0)
FROM numbers WHERE n <= 1000;

DROP TABLE numbers;
