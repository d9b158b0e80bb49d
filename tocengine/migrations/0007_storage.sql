-- Large bodies: lz4 where the server has it, otherwise stored as they are. The server the engine brings is built
-- without lz4, and pglz, the default, more than doubles what the server spends on a row of 9 KB.

do $$
declare
    body record;
    has_lz4 constant boolean := coalesce(
        (select 'lz4' = any(enumvals) from pg_settings where name = 'default_toast_compression'), false);
begin
    for body in
        select * from (values
            ('log_record', 'value'), ('encounter_event', 'fhir'), ('patient_event', 'fhir'), ('snapshot', 'fhir'),
            ('snapshot', 'content'), ('encounter', 'body'), ('outbox', 'value'), ('quarantine', 'body'),
            ('notice', 'body')
        ) as bodies (table_name, column_name)
    loop
        if has_lz4 then
            execute format('alter table %I alter column %I set storage extended', body.table_name, body.column_name);
            execute format('alter table %I alter column %I set compression lz4', body.table_name, body.column_name);
        else
            execute format('alter table %I alter column %I set storage external', body.table_name, body.column_name);
        end if;
    end loop;
end $$;
