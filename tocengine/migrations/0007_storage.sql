-- Large bodies come packed (formats/packing): the server shall not try to compress them again, and keeps up to 8 KB in
-- the row itself instead of in a table beside it. What an old server finds no room for goes there as it is.

do $$
declare
    body record;
begin
    for body in
        select * from (values
            ('encounter_event', 'fhir'), ('patient_event', 'fhir'), ('snapshot', 'fhir'), ('snapshot', 'content'),
            ('encounter', 'body'), ('outbox', 'value'), ('quarantine', 'body'), ('notice', 'body')
        ) as bodies (table_name, column_name)
    loop
        execute format('alter table %I alter column %I set storage external', body.table_name, body.column_name);
        execute format('alter table %I set (toast_tuple_target = 8160)', body.table_name);
    end loop;
end $$;
