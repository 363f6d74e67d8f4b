-- L2, L3, L4, L6
CREATE TEMP TRIGGER update_step INSTEAD OF INSERT ON updates BEGIN
    UPDATE steps
    SET started_at = coalesce(NEW.started_at, started_at),
        locks_acquired_at = coalesce(NEW.locks_acquired_at, locks_acquired_at),
        state_string = coalesce(NEW.state_string, state_string),
        complete_at = coalesce(NEW.complete_at, complete_at),
        results = coalesce(NEW.results, results),
        hidden = coalesce(NEW.hidden, hidden)
    WHERE id = NEW.step_id;

    INSERT INTO responses (request) SELECT NEW.request WHERE changes() = 1;
END;
