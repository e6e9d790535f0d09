// The transparency log, by its Merkle tree (RFC 9162): what an entry is, and proofs, verified one step at a time.
#pragma once
#include "trust.hpp"

namespace skylift {

// The hash under which the log has a published file: `role` of `repo`, in this version.
void file_leaf(Text file, const char* repo, const char* role, uint32_t version, uint8_t leaf[32]);
// The same of an order. It does not say whose: every device that is ordered this image gets the same.
void order_leaf(const Order& order, uint8_t leaf[32]);

}  // namespace skylift
