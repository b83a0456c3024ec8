/* Who runs where. A stage starts when everybody of the stages before is ready; draining has an order of
 * its own, and a stage drains when everybody of the stages before has ended.
 *
 * PROCESS(table, name, start stage, drain stage, workers?, inherited descriptors, told of the others?)
 */
PROCESS(POD,     "weft-tls",        0, 1, false, "vault",                    false)
PROCESS(POD,     "weft-retry",      0, 1, false, "",                         false)
PROCESS(POD,     "weft-telemetry",  0, 1, false, "admin",                    true)
PROCESS(POD,     "weft-link",       0, 1, false, "",                         false)
PROCESS(POD,     "weft-proxy",      1, 0, true,  "outbound inbound series limits", false)

/* The broker makes the key pair that the collector uses too, and asks the authority from its first
 * session on; it is the last to go, so that pods hear what changes meanwhile. */
PROCESS(CONTROL, "weft-authority",  0, 1, false, "",                         false)
PROCESS(CONTROL, "weft-broker",     1, 2, false, "",                         false)
PROCESS(CONTROL, "weft-collector",  2, 0, false, "",                         true)

#undef PROCESS
