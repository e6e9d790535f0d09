// A bounded JSON reader: no copies, no heap, no recursion. A text is checked once, whole; what walks it afterwards
// may believe its grammar.
#pragma once
#include "bytes.hpp"

namespace skylift {

constexpr int JSON_DEPTH = 16;

// A value inside a checked text; empty where there is none.
class Json {
 public:
  Json() = default;
  // The one object or array that `whole` is; empty where it is none: bad grammar, too deep, anything behind it.
  // `canonical`: only in the one form of signed files, which no two readers can read differently: names ascend and
  // stand once, nothing between the tokens, whole numbers from 0, printable ASCII, no escapes but `\n`.
  static Json parse(Text whole, bool canonical = false);

  explicit operator bool() const { return raw_.size != 0; }
  bool is_object() const { return raw_.size && raw_.at[0] == '{'; }
  bool is_array() const { return raw_.size && raw_.at[0] == '['; }
  // An object's member; empty where it has none, or where this is no object.
  Json operator[](const char* name) const;
  Json member(Text name) const;
  // A string as it stands between its quotes; no Text where this is none. Escapes stay as they are written.
  Text string() const;
  // A whole number in 0..most; false, and 0, for anything else.
  bool number(uint32_t most, uint32_t* value) const { return from_decimal(raw_, most, value); }
  // The same of an object's member.
  Text string(const char* name) const { return (*this)[name].string(); }
  bool says(const char* name, const char* word) const;  // it is this string
  bool keep(const char* name, char* to, uint32_t room) const;
  bool hex(const char* name, uint8_t* to, uint32_t n) const;
  bool number(const char* name, uint32_t most, uint32_t* value) const;
  bool is_true() const { return raw_.is("true"); }
  bool is_bool() const { return raw_.is("true") || raw_.is("false"); }
  Text raw() const { return raw_; }

 private:
  friend class Members;
  explicit Json(Text raw) : raw_(raw) {}
  Text raw_;
};

// Walks an object's members or an array's items (whose names are empty).
class Members {
 public:
  explicit Members(const Json& of);
  bool next();
  Text name;
  Json value;

 private:
  const char* at_ = nullptr;
  bool named_ = false;
};

}  // namespace skylift
