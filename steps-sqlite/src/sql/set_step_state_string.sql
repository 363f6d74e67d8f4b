-- L3, L6
CREATE TEMP TRIGGER set_step_state_string INSTEAD OF INSERT ON requests
WHEN NEW.operation = 'set_step_state_string' BEGIN
    UPDATE steps SET state_string = NEW.text WHERE id = NEW.target;

    INSERT INTO answers (request) SELECT NEW.request WHERE changes() = 1;
END;
