-- A few rows as the service's code writes them: two versions of a policy, one cited, a tree of three levels in each.
INSERT INTO policy_versions (policy_id, version_id, pageindex_doc_id, pdf_sha256, markdown_ptr, tree_json_ptr, ingested_at, created_at)
SELECT 'leave', v::text, 'doc-' || v, repeat('a', 64), 's3://m', 's3://t', timestamp '2026-01-01' + v * interval '1 day', '2026-01-01'
FROM generate_series(1, 2) AS v;
INSERT INTO policy_nodes (policy_id, version_id, node_id, parent_id, section_path, title, page_start, page_end, text, content_hash,
    updated_at)
SELECT 'leave', v::text, id, parent, path, title, 1, 2, title || ' text', encode(sha256(convert_to(title || ' text', 'UTF8')), 'hex'),
    timestamp '2026-01-01' + v * interval '1 day'
FROM generate_series(1, 2) AS v,
    (VALUES (1, '1', NULL, 'Leave', 'Leave'), (2, '1.1', '1', 'Leave > Annual', 'Annual'),
        (3, '1.1.1', '1.1', 'Leave > Annual > Days', 'Days'), (4, '1.2', '1', 'Leave > Sick', 'Sick'),
        (5, '2', NULL, 'Pay', 'Pay')) AS n (at, id, parent, path, title)
ORDER BY v, at;
INSERT INTO reasoning_outputs (case_id, criterion_id, policy_id, version_id, status) VALUES ('case', 'c1', 'leave', '1', 'met');
INSERT INTO policy_validation_issues (policy_id, version_id, description) VALUES ('leave', '2', 'page 2 is blank');
