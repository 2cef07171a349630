"""Events of users as they happen: a store of events, and the histories that they make."""
