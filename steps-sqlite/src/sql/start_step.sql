-- L2, L6
CREATE TEMP TRIGGER start_step INSTEAD OF INSERT ON requests WHEN NEW.operation = 'start_step' BEGIN
    UPDATE steps
    SET started_at = NEW.at, locks_acquired_at = iif(NEW.flag, NEW.at, locks_acquired_at)
    WHERE id = NEW.target;

    INSERT INTO answers (request) SELECT NEW.request WHERE changes() = 1;
END;
