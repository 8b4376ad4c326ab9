-- The job database as an interface: what administrators and other programs read. docs/database.md tells every column.
-- Tables may change from version to version; these views change only with VERSION in views.py.
--
-- Words in capitals with parentheses differ between SQLite and PostgreSQL and are replaced by views.py.

CREATE VIEW v_version AS
SELECT INTERFACE() AS interface, version_num AS schema FROM alembic_version;

CREATE VIEW v_clock AS
SELECT
    NOW() AS now,
    MIDNIGHT() AS midnight,
    AGO(1 hours) AS an_hour_ago,
    AGO(1 days) AS a_day_ago,
    AGO(7 days) AS a_week_ago,
    AGO(31 days) AS a_month_ago;

CREATE VIEW v_series AS
SELECT
    s.id AS series_id,
    st.patient_id,
    st.accession_number,
    st.study_date,
    st.study_instance_uid,
    s.series_instance_uid,
    s.modality,
    s.series_description,
    s.source_ae,
    s.scanner,
    s.state,
    s.revision,
    s.instance_count,
    s.expected_count,
    s.first_received_at,
    s.last_received_at,
    s.closed_at,
    s.close_reason,
    s.refusal,
    s.no_job_reason,
    s.images_deleted_at,
    (SELECT count(*) FROM job j WHERE j.series_id = s.id) AS jobs
FROM series s
JOIN study st ON st.id = s.study_id;

CREATE VIEW v_series_without_job AS
SELECT
    s.id AS series_id,
    st.patient_id,
    st.accession_number,
    st.study_instance_uid,
    s.series_instance_uid,
    s.modality,
    s.series_description,
    s.source_ae,
    s.scanner,
    s.instance_count,
    s.closed_at,
    s.no_job_reason AS reason
FROM series s
JOIN study st ON st.id = s.study_id
WHERE s.no_job_reason IS NOT NULL AND s.state <> 'receiving';

CREATE VIEW v_job AS
SELECT
    j.id AS job_id,
    j.state,
    j.rule,
    j.model,
    j.model_version,
    j.run_no,
    j.source_ae,
    j.scanner,
    st.patient_id,
    st.accession_number,
    st.study_date,
    st.study_instance_uid,
    s.series_instance_uid,
    s.modality,
    s.series_description,
    j.series_revision,
    j.priority,
    j.attempt,
    j.max_attempts,
    a.executor_id,
    s.first_received_at,
    s.last_received_at,
    j.created_at,
    j.started_at,
    j.finished_at,
    j.next_attempt_at,
    (
        SELECT CASE WHEN count(*) = count(CASE WHEN d.state = 'delivered' THEN 1 END) THEN max(d.finished_at) END
        FROM delivery d WHERE d.job_id = j.id
    ) AS delivered_at,
    CASE WHEN j.series_revision = s.revision THEN SECONDS(s.first_received_at, s.last_received_at) END AS receive_s,
    CASE WHEN j.series_revision = s.revision AND j.run_no = 1 THEN SECONDS(s.last_received_at, j.created_at) END AS settle_s,
    SECONDS(j.created_at, j.started_at) AS queue_s,
    SECONDS(j.started_at, j.finished_at) AS work_s,
    a.steps_s,
    (
        SELECT CASE WHEN count(*) = count(CASE WHEN d.state = 'delivered' THEN 1 END)
            THEN SECONDS(min(d.created_at), max(d.finished_at)) END
        FROM delivery d WHERE d.job_id = j.id
    ) AS deliver_s,
    (SELECT count(*) FROM delivery d WHERE d.job_id = j.id) AS deliveries,
    (SELECT count(CASE WHEN d.state = 'delivered' THEN 1 END) FROM delivery d WHERE d.job_id = j.id) AS delivered,
    j.failure,
    j.error,
    j.report,
    j.supersedes
FROM job j
JOIN series s ON s.id = j.series_id
JOIN study st ON st.id = s.study_id
LEFT JOIN job_attempt a ON a.job_id = j.id AND a.n = j.attempt;

CREATE VIEW v_work AS
SELECT
    j.id AS job_id,
    j.state,
    j.rule,
    j.model,
    j.model_version,
    j.source_ae,
    j.scanner,
    j.priority,
    j.attempt,
    j.created_at,
    j.started_at,
    j.finished_at,
    SECONDS(j.created_at, j.started_at) AS queue_s,
    SECONDS(j.started_at, j.finished_at) AS work_s,
    j.failure,
    j.error
FROM job j;

CREATE VIEW v_attempt AS
SELECT
    a.job_id,
    a.n AS attempt,
    j.model,
    j.model_version,
    a.executor_id,
    a.model_digest,
    a.started_at,
    a.ended_at,
    a.outcome,
    SECONDS(a.started_at, a.ended_at) AS took_s,
    a.steps_s,
    a.error
FROM job_attempt a
JOIN job j ON j.id = a.job_id;

CREATE VIEW v_job_step AS
SELECT
    a.job_id,
    a.n AS attempt,
    step.key AS step,
    CAST(step.value AS DOUBLE PRECISION) AS seconds
FROM job_attempt a
CROSS JOIN EACH(a.steps_s) AS step
WHERE step.key IS NOT NULL;

CREATE VIEW v_queue AS
SELECT
    j.id AS job_id,
    j.state,
    j.model,
    j.priority,
    j.attempt,
    j.max_attempts,
    j.created_at,
    j.started_at,
    j.next_attempt_at,
    SECONDS(j.created_at, NOW()) AS age_s,
    j.error AS last_error,
    j.source_ae,
    st.accession_number,
    s.series_instance_uid
FROM job j
JOIN series s ON s.id = j.series_id
JOIN study st ON st.id = s.study_id
WHERE j.state IN ('scheduled', 'in progress');

CREATE VIEW v_delivery AS
SELECT
    d.id AS delivery_id,
    d.job_id,
    d.destination,
    r.kind,
    r.sop_instance_uid,
    d.state,
    d.attempt,
    d.last_status,
    d.last_error,
    d.created_at,
    d.asked_at,
    d.next_attempt_at,
    d.finished_at,
    SECONDS(d.created_at, d.finished_at) AS took_s,
    p.state AS proof,
    CASE WHEN p.state = 'proven' THEN p.ended_at END AS proven_at,
    st.patient_id,
    st.accession_number,
    st.study_instance_uid
FROM delivery d
JOIN result r ON r.id = d.result_id
JOIN job j ON j.id = d.job_id
JOIN series s ON s.id = j.series_id
JOIN study st ON st.id = s.study_id
LEFT JOIN proof p ON p.delivery_id = d.id;

CREATE VIEW v_delivery_unproven AS
SELECT
    v.*,
    SECONDS(v.asked_at, NOW()) AS age_s
FROM v_delivery v
WHERE v.state IN ('waiting', 'sending', 'failed')
UNION ALL
SELECT
    v.*,
    SECONDS(v.asked_at, NOW()) AS age_s
FROM v_delivery v
WHERE v.state = 'delivered' AND v.delivery_id IN (SELECT o.delivery_id FROM proof o WHERE o.state <> 'proven');

CREATE VIEW v_failed AS
SELECT
    j.finished_at AS at,
    'job' AS kind,
    j.model AS what,
    j.error AS reason,
    j.id AS job_id,
    st.patient_id,
    st.accession_number,
    s.series_instance_uid
FROM job j
JOIN series s ON s.id = j.series_id
JOIN study st ON st.id = s.study_id
WHERE j.state = 'failed'
UNION ALL
SELECT
    d.finished_at,
    'delivery',
    d.destination,
    d.last_error,
    d.job_id,
    st.patient_id,
    st.accession_number,
    s.series_instance_uid
FROM delivery d
JOIN job j ON j.id = d.job_id
JOIN series s ON s.id = j.series_id
JOIN study st ON st.id = s.study_id
WHERE d.state = 'failed'
UNION ALL
SELECT
    e.at,
    'report',
    j.model,
    FIELD(e.detail, reason),
    j.id,
    st.patient_id,
    st.accession_number,
    s.series_instance_uid
FROM audit_event e
JOIN job j ON j.id = e.job_id
JOIN series s ON s.id = j.series_id
JOIN study st ON st.id = s.study_id
WHERE e.event = 'failure not reported'
UNION ALL
SELECT
    e.at,
    e.event,
    FIELD(e.detail, from),
    FIELD(e.detail, reason),
    NULL,
    NULL,
    NULL,
    NULL
FROM audit_event e
WHERE e.event IN ('association rejected', 'instance refused');

-- A subquery for midnight would keep SQLite from asking the indexes, and PostgreSQL from knowing how few rows there are.
CREATE VIEW v_failed_today AS
SELECT * FROM v_failed WHERE at >= MIDNIGHT();

CREATE VIEW v_throughput AS
SELECT
    DAY(j.finished_at) AS day,
    j.model,
    j.model_version,
    j.source_ae,
    count(*) AS jobs,
    count(CASE WHEN j.state = 'completed' THEN 1 END) AS completed,
    count(CASE WHEN j.state = 'failed' THEN 1 END) AS failed,
    count(CASE WHEN j.state = 'canceled' THEN 1 END) AS canceled
FROM job j
WHERE j.state IN ('completed', 'failed', 'canceled') AND j.finished_at >= AGO(7 days)
GROUP BY DAY(j.finished_at), j.model, j.model_version, j.source_ae;

-- Times that are about equal are counted together, a tenth of a second below ten and a second from there on: there is less
-- to put in order. They come first in the grouping, since two numbers are compared faster than two texts.
CREATE VIEW v_latency AS
SELECT
    model,
    model_version,
    source_ae,
    scanner,
    CAST(max(jobs) AS BIGINT) AS jobs,
    CAST(min(CASE WHEN step = 'queue' AND upto * 2 >= jobs THEN tenths END) AS DOUBLE PRECISION) / 10 AS queue_median_s,
    CAST(min(CASE WHEN step = 'queue' AND upto * 100 >= jobs * 95 THEN tenths END) AS DOUBLE PRECISION) / 10 AS queue_p95_s,
    CAST(min(CASE WHEN step = 'work' AND upto * 2 >= jobs THEN tenths END) AS DOUBLE PRECISION) / 10 AS work_median_s,
    CAST(min(CASE WHEN step = 'work' AND upto * 100 >= jobs * 95 THEN tenths END) AS DOUBLE PRECISION) / 10 AS work_p95_s,
    CAST(max(CASE WHEN step = 'work' THEN tenths END) AS DOUBLE PRECISION) / 10 AS work_longest_s
FROM (
    SELECT
        counted.*,
        sum(n) OVER (PARTITION BY step, source_ae, scanner, model, model_version ORDER BY tenths) AS upto,
        sum(n) OVER (PARTITION BY step, source_ae, scanner, model, model_version) AS jobs
    FROM (
            SELECT
                'queue' AS step, j.model, j.model_version, j.source_ae, j.scanner,
                TENTHS(j.created_at, j.started_at) AS tenths,
                count(*) AS n
            FROM job j
            WHERE j.finished_at >= AGO(7 days) AND j.state = 'completed'
            GROUP BY TENTHS(j.created_at, j.started_at), j.source_ae, j.scanner, j.model, j.model_version
            UNION ALL
            SELECT
                'work' AS step, j.model, j.model_version, j.source_ae, j.scanner,
                TENTHS(j.started_at, j.finished_at) AS tenths,
                count(*) AS n
            FROM job j
            WHERE j.finished_at >= AGO(7 days) AND j.state = 'completed'
            GROUP BY TENTHS(j.started_at, j.finished_at), j.source_ae, j.scanner, j.model, j.model_version
    ) counted
) ranked
GROUP BY model, model_version, source_ae, scanner;

CREATE VIEW v_peer AS
SELECT
    a.calling_ae,
    a.called_ae,
    a.peer_address,
    a.implementation,
    COUNT(*) AS associations,
    SUM(a.stored) AS stored,
    SUM(a.refused) AS refused,
    MIN(a.started_at) AS first_at,
    MAX(a.started_at) AS last_at
FROM association a
GROUP BY a.calling_ae, a.called_ae, a.peer_address, a.implementation;

CREATE VIEW v_node AS
SELECT
    n.executor_id,
    n.host,
    n.role,
    n.slot,
    n.pid,
    n.version,
    n.state,
    n.started_at,
    n.beat_at,
    SECONDS(n.beat_at, NOW()) AS silent_s
FROM node n;

CREATE VIEW v_audit AS
SELECT
    e.id AS event_id,
    e.at,
    e.event,
    e.actor,
    e.association_id,
    e.series_id,
    e.job_id,
    e.delivery_id,
    e.detail
FROM audit_event e;
