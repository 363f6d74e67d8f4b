-- U1, U2, L6
CREATE TEMP TRIGGER add_url INSTEAD OF INSERT ON requests WHEN NEW.operation = 'add_url' BEGIN
    INSERT INTO answers (request) SELECT NEW.request FROM steps WHERE id = NEW.target;

    INSERT INTO step_urls (step_id, position, digest, name, url)
    SELECT NEW.target, coalesce((SELECT max(position) FROM step_urls WHERE step_id = NEW.target), -1) + 1,
           unhex(NEW.key), NEW.name, NEW.text
    WHERE changes() = 1
    ON CONFLICT (step_id, digest) DO NOTHING;
END;
