-- L3, L6
CREATE TEMP TRIGGER set_step_locks_acquired_at INSTEAD OF INSERT ON requests
WHEN NEW.operation = 'set_step_locks_acquired_at' BEGIN
    UPDATE steps SET locks_acquired_at = NEW.at WHERE id = NEW.target;

    INSERT INTO answers (request) SELECT NEW.request WHERE changes() = 1;
END;
