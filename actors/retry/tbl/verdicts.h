/* Every verdict: VERDICT(NAME, "meaning"). The names are stable: they cross the wire in retry_stop, label
 * weft_retry_decisions_total and are explained in docs/. GO is the only one that is not a refusal. */
VERDICT(GO,            "try again")
VERDICT(NOT_RETRYABLE, "neither the request nor its route allows another attempt")
VERDICT(DELIVERED,     "the request reached the application, or may have, and is not known to be repeatable")
VERDICT(LIMIT,         "the policy's number of further attempts was used up")
VERDICT(DEADLINE,      "the exchange's deadline comes before the next attempt could begin")
VERDICT(BUDGET,        "the service's retry budget is empty: retries would make an overload worse")
VERDICT(PRESSURE,      "the server's side refuses further attempts for the moment: too large a part of its requests were such")
