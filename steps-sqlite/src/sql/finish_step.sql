-- L4, L6
CREATE TEMP TRIGGER finish_step INSTEAD OF INSERT ON requests WHEN NEW.operation = 'finish_step' BEGIN
    UPDATE steps SET complete_at = NEW.at, results = NEW.results, hidden = NEW.flag WHERE id = NEW.target;

    INSERT INTO answers (request) SELECT NEW.request WHERE changes() = 1;
END;
