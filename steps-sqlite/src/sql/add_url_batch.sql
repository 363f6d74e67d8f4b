-- U1, U2, L6
CREATE TEMP TRIGGER add_url INSTEAD OF INSERT ON urls BEGIN
    INSERT INTO responses (request) SELECT NEW.request FROM steps WHERE id = NEW.step_id;

    INSERT INTO step_urls (step_id, position, digest, name, url)
    SELECT NEW.step_id, coalesce((SELECT max(position) FROM step_urls WHERE step_id = NEW.step_id), -1) + 1,
           unhex(NEW.digest), NEW.name, NEW.url
    WHERE changes() = 1
    ON CONFLICT (step_id, digest) DO NOTHING;
END;
