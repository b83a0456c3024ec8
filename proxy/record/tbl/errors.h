/*  name             class  text for the operator */
ERR(RECORD_SUITE,    PEER,  "the cipher suite is not one of TLS 1.3 that Weft knows")
ERR(RECORD_SECRET,   PEER,  "a traffic secret does not have the length its cipher suite asks for")
ERR(RECORD_ENDED,    HERE,  "something was to be sent on a TLS connection behind its close_notify or alert")
ERR(RECORD_CRYPTO,   HERE,  "the cryptographic library failed")
