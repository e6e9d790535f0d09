/* Envoy's C interface for dynamic modules, as far as the filters here use it, and what they share. Version 0.2.0, as
 * in Envoy 1.40. */
#ifndef SKYLIFT_ENVOY_H
#define SKYLIFT_ENVOY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENVOY(name) envoy_dynamic_module_callback_##name
#define HOOK(name) envoy_dynamic_module_on_##name

typedef struct {
    const char *at;
    size_t length;
} text;
typedef struct {
    const char *name;
    size_t name_length;
    const char *value;
    size_t value_length;
} header;

bool ENVOY(http_get_header)(void *envoy, int where, text name, text *value, size_t index, size_t *count);
bool ENVOY(http_set_header)(void *envoy, int where, text name, text value);
void ENVOY(http_send_response)(void *envoy, uint32_t status, header *h, size_t n, text body, text details);
bool ENVOY(http_filter_get_attribute_string)(void *envoy, int attribute, text *value);
const void *ENVOY(get_most_specific_route_config)(void *envoy);
void *ENVOY(http_filter_scheduler_new)(void *envoy);
void ENVOY(http_filter_continue_decoding)(void *envoy);
size_t ENVOY(http_get_headers_size)(void *envoy, int where);
bool ENVOY(http_get_headers)(void *envoy, int where, header *found);
size_t ENVOY(http_get_body_size)(void *envoy, int which);
size_t ENVOY(http_get_body_chunks_size)(void *envoy, int which);
bool ENVOY(http_get_body_chunks)(void *envoy, int which, text *found);
bool ENVOY(http_drain_body)(void *envoy, int which, size_t bytes);
bool ENVOY(http_append_body)(void *envoy, int which, text more);

enum { REQUEST = 0, RESPONSE = 2 };
enum { RECEIVED_RESPONSE_BODY = 2 };
enum { GO_ON = 0, STOP = 1, STOP_AND_HOLD_BODY = 4 };

#define TEXT(s) ((text){(s), strlen(s)})

/* A filter of its own beside limits and consumers: what the module does when Envoy says something to it. What a stream
 * has is made and freed by Envoy's word; `config` is of text that is taken apart in place, NULL refuses it. */
typedef struct {
    const char *name;
    void *(*config)(char *lines);
    void (*config_free)(void *config);
    void *(*begin)(void);
    void (*end)(void *stream, const void *config);
    int (*request)(void *envoy, void *stream, const void *config);
    int (*response)(void *envoy, void *stream, const void *config, bool last);
    int (*body)(void *envoy, void *stream, const void *config, bool last); /* also with trailers: last */
    void (*failed)(void *stream, uint32_t status); /* Envoy answers by itself */
} kind;

extern const kind ANSWERS, BREAKER, ADDRESSES, REROUTE;

int64_t now_us(void); /* never jumps */
text get(void *envoy, int where, const char *name);
void set(void *envoy, int where, const char *name, const char *value);
bool same(text a, const char *b); /* without case */

/* The hop of X-Forwarded-For that ends before `end`, and where the one before it ends. */
size_t hop_before(const char *at, size_t end, text *hop);

/* The so-manieth from the right of what the client sent; empty where there are fewer. */
text forwarded_at(void *envoy, int depth);

/* Every line of a configuration taken apart, its first word and the rest; false where one makes no sense. */
bool each_line(char *lines, bool (*parse)(void *into, const char *word, const char *value), void *into);

#endif
