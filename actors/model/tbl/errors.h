/*  name            class  text for the operator */
ERR(MODEL_NAME,     PEER,  "not a valid name or address")
ERR(MODEL_SYNTAX,   PEER,  "not valid YAML or JSON")
ERR(MODEL_INVALID,  PEER,  "the object is not valid; the reason names the field")
ERR(MODEL_PATTERN,  PEER,  "not a regular expression that is supported here")
ERR(MODEL_LIMIT,    PEER,  "more or larger than what is allowed")
