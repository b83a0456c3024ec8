/*  name            class  text for the operator */
ERR(USAGE,          HERE,  "the command line is not understood")
ERR(NO_MESH,        HERE,  "no mesh runs with this run directory")
ERR(MESH_EXISTS,    HERE,  "a mesh runs already")
ERR(PROGRAM_FAILED, HERE,  "a program that was called for help failed")
ERR(NOT_READY,      FLEET, "not ready in time")
ERR(REFUSED,        FLEET, "the broker refused")
ERR(NOT_OURS,       HERE,  "it is there, but nothing proves that Weft made it")
