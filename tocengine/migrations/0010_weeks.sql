-- Fewer partitions of messages seen, and fewer index entries for a message: docs/decisions/0015-partitions.md.

-- By id first: one index both keeps a message single and finds it.
drop index message_seen_by_id;
alter table message_seen drop constraint message_seen_pkey;
alter table message_seen add primary key (message_id, revision, part, day);

create function message_seen_weeks()
returns table (name text, first_day date, end_day date) language sql stable set datestyle = 'ISO' as $$
-- The partitions by their days, as their bounds say; the default one is none of them.
    select quote_ident(c.relname), bound[1]::date, bound[2]::date
    from pg_inherits i join pg_class c on c.oid = i.inhrelid,
    regexp_match(pg_get_expr(c.relpartbound, c.oid), '\(''([\d-]+)''\) TO \(''([\d-]+)''\)') as bound
    where i.inhparent = 'message_seen'::regclass and bound is not null
    order by 2
$$;

create or replace function prepare_message_seen(first_day date, last_day date) returns int language plpgsql as $$
-- A partition for each week (from Monday on) with a day that has none, as far as others leave room: there were days before.
-- What was kept elsewhere of these days moves there. Returns how many were made.
declare
    one   date := first_day;
    after date;
    until date;
    name  text;
    made  int := 0;
begin
    while one <= last_day loop
        select w.end_day into after from message_seen_weeks() w where w.first_day <= one and one < w.end_day;
        if found then
            one := after;
            continue;
        end if;
        select coalesce(max(w.end_day), '-infinity') into after from message_seen_weeks() w where w.end_day <= one;
        select coalesce(min(w.first_day), 'infinity') into until from message_seen_weeks() w where w.first_day > one;
        after := greatest(after, date_trunc('week', one)::date);
        until := least(until, date_trunc('week', one)::date + 7);
        name := 'message_seen_' || to_char(after, 'YYYYMMDD');
        execute format('create table %I (like message_seen including all)', name);
        execute format('with moved as (delete from message_seen_other where day >= %L and day < %L returning *) '
                       'insert into %I select * from moved', after, until, name);
        execute format('alter table message_seen attach partition %I for values from (%L) to (%L)', name, after, until);
        made := made + 1;
        one := until;
    end loop;
    return made;
end $$;

-- Nobody read it, and with it no attempt could end where its row lies: the end of an attempt wrote all its indexes anew.
drop index attempt_open;
