/* Who a credential is. The text: "from HEADER", a request header that carries the credential (the first of several that
 * is there counts), then "is CREDENTIAL<tab>FIELD<tab>..." a line, the fields in the order of CONSUMER_HEADERS; an empty one
 * is not told. "else <tab>FIELD<tab>...": who everybody else is, where nobody has to say who he is. */
#ifndef SKYLIFT_CONSUMERS_H
#define SKYLIFT_CONSUMERS_H

#include <stddef.h>

enum { CONSUMER_FIELDS = 6, MAX_FROM = 8 };
extern const char *const CONSUMER_HEADERS[CONSUMER_FIELDS];

typedef struct consumers consumers;

/* Of text that is taken apart in place. NULL when it makes no sense. */
consumers *consumers_of(char *lines);
void consumers_free(consumers *c);
const char *consumers_header(const consumers *c, int i); /* NULL behind the last */
const char *const *consumers_otherwise(const consumers *c); /* NULL where there is no "else" */

/* The fields of a credential; NULL when nobody has it. */
const char *const *consumers_find(const consumers *c, const char *credential, size_t length);

#endif
