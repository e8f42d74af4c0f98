-- Events that are stored with what they tell of, until they are published.
CREATE TABLE outbox (
	number      INTEGER PRIMARY KEY AUTOINCREMENT,
	id          TEXT NOT NULL,               -- of the event, the same however often it is published
	subject     TEXT NOT NULL,               -- events of one subject are published in order
	routing_key TEXT NOT NULL,
	event       TEXT NOT NULL,               -- as JSON
	owner       TEXT NOT NULL DEFAULT '',    -- the batch that publishes it at present
	due         BIGINT NOT NULL DEFAULT 0,   -- nobody takes it before, in Unix milliseconds: the end of the owner's lease, or of a pause
	attempts    INTEGER NOT NULL DEFAULT 0,  -- that failed
	parked      BOOLEAN NOT NULL DEFAULT FALSE, -- it can never be published as it is
	error       TEXT NOT NULL DEFAULT ''     -- of the last attempt
);

CREATE INDEX outbox_subject ON outbox (subject, number);
