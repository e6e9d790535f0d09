#include "json.hpp"

namespace skylift {
namespace {

bool space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
bool digit(char c) { return c >= '0' && c <= '9'; }

// Both with their closing quotes, which sort before every other character that a name may have.
bool ascends(Text a, Text b) {
  const uint32_t n = a.size < b.size ? a.size : b.size;
  for (uint32_t k = 0; k + 1 < n; k++)
    if (a.at[k] != b.at[k]) return a.at[k] < b.at[k];
  return a.size < b.size;
}

// Reads forward over a text that ends at `end`; `bad` once it is not JSON.
struct Reader {
  const char* at;
  const char* end;
  bool canonical;  // the one form of signed files: see `Json::canonical`
  bool bad = false;
  Text last[JSON_DEPTH + 1] = {};  // by depth: the name before, where names must ascend

  char peek() const { return at < end ? *at : 0; }
  void spaces() {
    while (!canonical && at < end && space(*at)) at++;
  }
  bool take(char c) {
    if (peek() != c) return false;
    at++;
    return true;
  }
  void need(char c) { bad |= !take(c); }
  void word(const char* wanted) {
    while (*wanted && !bad) need(*wanted++);
  }
  void digits() {
    bad |= !digit(peek());
    while (digit(peek())) at++;
  }
  void number() {
    const char* from = at;
    if (canonical) {
      if (!take('0')) digits();
      bad |= at - from > 15;
      return;
    }
    take('-');
    if (!take('0')) digits();
    if (take('.')) digits();
    if (peek() == 'e' || peek() == 'E') {
      at++;
      if (!take('+')) take('-');
      digits();
    }
  }
  void escape() {
    const char c = peek();
    at++;
    bad |= canonical && c != 'n';
    if (c == 'u') {
      for (int k = 0; k < 4 && !bad; k++, at++) bad |= hex_digit(peek()) < 0;
      return;
    }
    bool known = false;
    for (const char* all = "\"\\/bfnrt"; *all; all++) known |= *all == c;
    bad |= !known;
  }
  void string() {
    need('"');
    while (!bad && !take('"')) {
      if (at >= end || static_cast<uint8_t>(*at) < ' ' || (canonical && static_cast<uint8_t>(*at) > '~'))
        bad = true;
      else if (*at++ == '\\')
        escape();
    }
  }
  void name(int depth) {
    const char* from = at;
    string();
    spaces();
    if (canonical && !bad) {
      const Text now = {from, static_cast<uint32_t>(at - from)}, before = last[depth];
      bad |= before && !ascends(before, now);
      last[depth] = now;
    }
    need(':');
  }
  void scalar() {
    switch (peek()) {
      case '"': return string();
      case 't': return word("true");
      case 'f': return word("false");
      case 'n': return canonical ? need('0') : word("null");
      default: return number();
    }
  }
};

// The whole value, its brackets on a stack of bits: 1 an object, 0 an array.
void walk(Reader& r) {
  uint32_t kinds = 0;
  int depth = 0;
  for (;;) {
    r.spaces();
    const bool object = r.peek() == '{';
    if (object || r.peek() == '[') {
      r.at++;
      // Of a signed file a part is looked at: the file around it is a level too.
      r.bad |= ++depth > JSON_DEPTH - (r.canonical ? 1 : 0);
      if (r.bad) return;
      kinds = kinds << 1 | (object ? 1u : 0u);
      r.last[depth] = {};
      r.spaces();
      if (r.peek() != (object ? '}' : ']')) {
        if (object) r.name(depth);
        if (r.bad) return;
        continue;
      }
    } else {
      r.scalar();
    }
    for (;;) {  // after a value: brackets that end here, then a comma or the end of it all
      if (r.bad) return;
      r.spaces();
      if (!depth) return;
      if (!r.take(kinds & 1 ? '}' : ']')) break;
      kinds >>= 1;
      depth--;
    }
    r.need(',');
    r.spaces();
    if (kinds & 1) r.name(depth);
    if (r.bad) return;
  }
}

// Behind the value at `at`, in a checked text.
const char* behind(const char* at) {
  int depth = 0;
  do {
    if (*at == '"') {
      for (at++; *at != '"'; at++)
        if (*at == '\\') at++;
    }
    depth += *at == '{' || *at == '[' ? 1 : *at == '}' || *at == ']' ? -1 : 0;
    at++;
  } while (depth);
  return at;
}
bool plain(char c) { return digit(c) || (c >= 'a' && c <= 'z') || c == '-' || c == '+' || c == '.' || c == 'E'; }

// The value at `at`: numbers and words end where their letters do.
Text value_at(const char* at) {
  const char* end = at;
  if (plain(*at))
    while (plain(*end)) end++;
  else
    end = behind(at);
  return {at, static_cast<uint32_t>(end - at)};
}
const char* over(const char* at) {
  while (space(*at)) at++;
  return at;
}

}  // namespace

Json Json::parse(Text whole, bool canonical) {
  Reader r = {whole.at, whole.at + whole.size, canonical};
  r.spaces();
  const char* from = r.at;
  walk(r);
  if (r.bad || r.at != r.end || r.at == from) return {};
  // A bare number or word would end at the text's end, which nothing marks: no answer of ours is one.
  return *from == '{' || *from == '[' ? Json(value_at(from)) : Json();
}

Json Json::operator[](const char* name) const { return member(text(name)); }

Json Json::member(Text name) const {
  if (!is_object()) return {};
  for (Members each(*this); each.next();)
    if (each.name.size == name.size && equal(each.name.at, name.at, name.size)) return each.value;
  return {};
}

Text Json::string() const {
  if (!raw_.size || raw_.at[0] != '"') return {};
  return {raw_.at + 1, raw_.size - 2};
}

bool Json::says(const char* name, const char* word) const { return string(name).is(word); }
bool Json::keep(const char* name, char* to, uint32_t room) const { return skylift::keep(string(name), to, room); }
bool Json::hex(const char* name, uint8_t* to, uint32_t n) const { return from_hex(string(name), to, n); }
bool Json::number(const char* name, uint32_t most, uint32_t* value) const { return (*this)[name].number(most, value); }

Members::Members(const Json& of) {
  if (!of.is_object() && !of.is_array()) return;
  at_ = of.raw_.at + 1;
  named_ = of.is_object();
}

bool Members::next() {
  if (!at_) return false;
  at_ = over(at_);
  if (*at_ == ',') at_ = over(at_ + 1);
  if (*at_ == '}' || *at_ == ']') {
    at_ = nullptr;
    return false;
  }
  name = {};
  if (named_) {
    const Text quoted = value_at(at_);
    name = {quoted.at + 1, quoted.size - 2};
    at_ = over(over(at_ + quoted.size) + 1);
  }
  value = Json(value_at(at_));
  at_ += value.raw_.size;
  return true;
}

}  // namespace skylift
