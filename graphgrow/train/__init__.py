"""Growing while training: policies that decide, a grower for any loop, and a trainer that is ready made."""
