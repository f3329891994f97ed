-- The tables of a reasoning-service, as its own revision 693889b485e5 makes them. Names of keys, constraints and indexes are not
-- those that treestore gives: nothing may depend on them.
CREATE TABLE policy_versions (
    policy_id varchar(100) NOT NULL,
    version_id varchar(50) NOT NULL,
    pageindex_doc_id varchar(64) NOT NULL,
    pdf_sha256 varchar(64) NOT NULL,
    markdown_ptr text NOT NULL,
    tree_json_ptr text NOT NULL,
    source_url text,
    effective_date timestamp,
    revision_date timestamp,
    ingested_at timestamp NOT NULL DEFAULT now(),
    tree_validated_by varchar(100),
    tree_validated_at timestamp,
    created_at timestamp NOT NULL DEFAULT now(),
    CONSTRAINT pk_policy_versions PRIMARY KEY (policy_id, version_id)
);
CREATE INDEX idx_policy_versions_ingested ON policy_versions (policy_id, ingested_at);

CREATE TABLE policy_nodes (
    id serial NOT NULL,
    policy_id varchar(100) NOT NULL,
    version_id varchar(50) NOT NULL,
    node_id varchar(100) NOT NULL,
    parent_id varchar(100),
    section_path varchar(500) NOT NULL,
    title text NOT NULL,
    page_index integer,
    page_start integer,
    page_end integer,
    summary text,
    text text,
    content_hash varchar(64) NOT NULL,
    validation_status varchar(20) NOT NULL DEFAULT 'pending',
    updated_at timestamp NOT NULL DEFAULT now(),
    CONSTRAINT pk_policy_nodes PRIMARY KEY (id),
    CONSTRAINT fk_policy_nodes_version FOREIGN KEY (policy_id, version_id) REFERENCES policy_versions (policy_id, version_id),
    CONSTRAINT check_page_range CHECK ((page_start IS NULL AND page_end IS NULL) OR page_start <= page_end),
    CONSTRAINT check_validation_status CHECK (validation_status IN ('pending', 'approved', 'flagged'))
);
CREATE INDEX idx_policy_nodes_lookup ON policy_nodes (policy_id, version_id, node_id);
CREATE INDEX idx_policy_nodes_parent ON policy_nodes (policy_id, version_id, parent_id);

CREATE TABLE reasoning_outputs (
    id serial PRIMARY KEY,
    case_id varchar(100) NOT NULL,
    criterion_id varchar(100) NOT NULL,
    policy_id varchar(100) NOT NULL,
    version_id varchar(50) NOT NULL,
    status varchar(20) NOT NULL,
    rationale text,
    CONSTRAINT fk_outputs_version FOREIGN KEY (policy_id, version_id) REFERENCES policy_versions (policy_id, version_id)
);

CREATE TABLE policy_validation_issues (
    id serial PRIMARY KEY,
    policy_id varchar(100) NOT NULL,
    version_id varchar(50) NOT NULL,
    node_id varchar(100),
    description text NOT NULL,
    CONSTRAINT fk_issues_version FOREIGN KEY (policy_id, version_id) REFERENCES policy_versions (policy_id, version_id)
);

CREATE TABLE alembic_version (version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY);
INSERT INTO alembic_version VALUES ('693889b485e5');
