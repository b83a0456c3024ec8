/*  name              class  text for the operator */
ERR(LINK_NO_KEY,      HERE,  "the link's own key file is not usable")
ERR(LINK_FULL,        HERE,  "the pod uses as many targets as it may")
ERR(LINK_BAD_SERVES,  HERE,  "WEFT_SERVES is not SERVICE:PORT[/PROTOCOL], comma separated")
ERR(LINK_SNAPSHOT,    HERE,  "the snapshot is damaged or of another version; it is not used")
