-- What was set aside goes when it is old (retention.quarantine_days): found by its age, open or settled.

create index quarantine_age on quarantine (received_at);
