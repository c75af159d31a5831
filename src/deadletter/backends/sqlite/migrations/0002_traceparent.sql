-- What marks a failed attempt in traces, so that the next one can point back to it.
ALTER TABLE dl_failures ADD COLUMN traceparent TEXT;
