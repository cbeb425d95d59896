#include "core/sublist_patterns.h"

#include <algorithm>
#include <cassert>

namespace peregrine::core {
namespace {

bool is_pwc(std::string_view token) { return token.size() == 1 && token[0] == '*'; }

// A pattern's tokens before the `>`, and whether it has one.
std::pair<std::string_view, bool> body_of(std::string_view pattern) {
  if (pattern == ">") return {{}, true};
  if (pattern.ends_with(".>")) return {pattern.substr(0, pattern.size() - 2), true};
  return {pattern, false};
}

// Length of the common leading tokens of two non-empty token lists, in bytes, without a trailing separator.
size_t common_tokens(std::string_view a, std::string_view b) {
  size_t same = 0;
  const size_t size = std::min(a.size(), b.size());
  size_t i = 0;
  for (; i < size && a[i] == b[i]; i++) {
    if (a[i] == '.') same = i;
  }
  if (i == size && (a.size() == size || a[size] == '.') && (b.size() == size || b[size] == '.')) same = size;
  return same;
}

// The trie's own price of a node or a child link, roughly what the allocator takes.
constexpr uint64_t kChildBytes = 96;

}  // namespace

// ---- PatternTrie

PatternTrie::~PatternTrie() {
  // Not by recursion: a chain of nodes may be as deep as a pattern has tokens.
  std::vector<std::unique_ptr<Children>> work;
  if (root_.children != nullptr) work.push_back(std::move(root_.children));
  while (!work.empty()) {
    const std::unique_ptr<Children> children = std::move(work.back());
    work.pop_back();
    for (auto& [token, child] : *children) {
      if (child->children != nullptr) work.push_back(std::move(child->children));
    }
  }
}

void PatternTrie::account(const Node& node, int64_t sign) {
  bytes_ += static_cast<uint64_t>(sign * static_cast<int64_t>(sizeof(Node) + kChildBytes + node.label.size()));
}

// The node whose path is the longest prefix of `body` in whole labels; `left` is what remains.
PatternTrie::Node* PatternTrie::descend(std::string_view body, std::string_view& left) const {
  auto* node = const_cast<Node*>(&root_);
  while (!body.empty() && node->children != nullptr) {
    const auto found = node->children->find(first_token(body));
    if (found == node->children->end()) break;
    Node* child = found->second.get();
    if (common_tokens(child->label, body) != child->label.size()) break;
    body.remove_prefix(std::min(child->label.size() + 1, body.size()));
    node = child;
  }
  left = body;
  return node;
}

PatternTrie::Ref PatternTrie::find(std::string_view pattern) const {
  const auto [body, rest] = body_of(pattern);
  std::string_view left;
  const Node* node = descend(body, left);
  if (!left.empty()) return 0;
  return rest ? node->rest : node->exact;
}

PatternTrie::Node* PatternTrie::add_child(Node* parent, std::string_view label) {
  auto made = std::make_unique<Node>();
  made->label = label;
  made->parent = parent;
  if (parent->children == nullptr) parent->children = std::make_unique<Children>();
  account(*made, 1);
  Node* const child = made.get();
  parent->children->emplace(std::string(first_token(label)), std::move(made));
  return child;
}

// Cuts `node` after `size` bytes of its label; the new upper node is returned, `node` keeps its place below it.
PatternTrie::Node* PatternTrie::split(Node* node, size_t size) {
  auto& place = node->parent->children->find(first_token(node->label))->second;
  account(*node, -1);
  auto upper = std::make_unique<Node>();
  upper->label = node->label.substr(0, size);
  upper->parent = node->parent;
  upper->children = std::make_unique<Children>();
  std::unique_ptr<Node> lower = std::move(place);
  lower->label.erase(0, size + 1);
  lower->label.shrink_to_fit();
  lower->parent = upper.get();
  account(*lower, 1);
  account(*upper, 1);
  std::string token(first_token(lower->label));
  (*upper->children)[std::move(token)] = std::move(lower);
  place = std::move(upper);
  return place.get();
}

void PatternTrie::insert(std::string_view pattern, Ref ref) {
  const auto [body, rest] = body_of(pattern);
  std::string_view left;
  Node* node = descend(body, left);
  if (!left.empty()) {
    Node* overlapping = nullptr;
    if (node->children != nullptr) {
      const auto found = node->children->find(first_token(left));
      if (found != node->children->end()) overlapping = found->second.get();
    }
    if (overlapping != nullptr) {
      const size_t same = common_tokens(overlapping->label, left);
      node = split(overlapping, same);
      left.remove_prefix(std::min(same + 1, left.size()));
    }
    if (!left.empty()) node = add_child(node, left);
  }
  (rest ? node->rest : node->exact) = ref;
  size_++;
}

void PatternTrie::erase(std::string_view pattern) {
  const auto [body, rest] = body_of(pattern);
  std::string_view left;
  Node* node = descend(body, left);
  assert(left.empty() && (rest ? node->rest : node->exact) != 0);
  (rest ? node->rest : node->exact) = 0;
  size_--;
  tidy(node);
}

// Removes a node nothing ends at, or joins it with its only child: at most two nodes a pattern, always.
void PatternTrie::tidy(Node* node) {
  while (node != &root_ && node->exact == 0 && node->rest == 0) {
    const size_t count = node->children == nullptr ? 0 : node->children->size();
    if (count > 1) return;
    Node* const parent = node->parent;
    auto place = parent->children->find(first_token(node->label));
    account(*node, -1);
    if (count == 0) {
      parent->children->erase(place);
      if (parent->children->empty()) parent->children.reset();
      node = parent;
      continue;
    }
    std::unique_ptr<Node> child = std::move(node->children->begin()->second);
    account(*child, -1);
    child->label = node->label + "." + child->label;
    child->parent = parent;
    account(*child, 1);
    place->second = std::move(child);
    return;
  }
}

void PatternTrie::collect(const std::vector<std::string_view>& tokens, std::vector<Ref>& out) {
  const auto enter = [&](const Node* child, size_t at) {
    // The child's label against the tokens from `at`; its first token is known to match.
    for (const std::string_view token : Tokens(child->label)) {
      if (at == tokens.size() || (!is_pwc(token) && token != tokens[at])) return;
      at++;
    }
    work_.emplace_back(child, static_cast<uint32_t>(at));
  };
  work_.clear();
  work_.emplace_back(&root_, 0);
  while (!work_.empty()) {
    const auto [node, at] = work_.back();
    work_.pop_back();
    if (at == tokens.size()) {
      if (node->exact != 0) out.push_back(node->exact);
      continue;
    }
    if (node->rest != 0) out.push_back(node->rest);
    if (node->children == nullptr) continue;
    const auto star = node->children->find(std::string_view("*"));
    if (star != node->children->end()) enter(star->second.get(), at);
    if (is_pwc(tokens[at])) continue;  // a published `*` reaches wildcards only
    const auto literal = node->children->find(tokens[at]);
    if (literal != node->children->end()) enter(literal->second.get(), at);
  }
}

// ---- PatternIndex

PatternIndex::PatternIndex(const KeyedHash& hash, EntrySlab& slab) : hash_(hash), slab_(slab) {}

PatternIndex::Parsed PatternIndex::parse(std::string_view pattern) const {
  Parsed parsed;
  const auto [body, full] = body_of(pattern);
  Shape& shape = parsed.shape;
  shape.full = full;
  uint64_t sum = 0;
  for (const std::string_view token : Tokens(body)) {
    if (shape.tokens == kMaxShapeTokens) return parsed;
    if (!is_pwc(token)) {
      shape.literals |= uint32_t{1} << shape.tokens;
      sum ^= hash_(token, salt(shape.tokens));
    }
    shape.tokens++;
  }
  shape.seed = hash_.combine((uint64_t{shape.tokens} << 33) | (uint64_t{full} << 32) | shape.literals, 1);
  parsed.key = hash_.combine(sum, shape.seed);
  parsed.fits = true;
  return parsed;
}

EntrySlot* PatternIndex::find_slot(uint64_t key, std::string_view pattern) const {
  return table_.find(tag_of(key), [&](const EntrySlot& slot) { return entry_at(slot.ref)->text() == pattern; });
}

Entry* PatternIndex::find(std::string_view pattern) const {
  const Parsed parsed = parse(pattern);
  if (parsed.fits) {
    if (const EntrySlot* slot = find_slot(parsed.key, pattern)) return entry_at(slot->ref);
  }
  const EntrySlab::Ref ref = trie_.empty() ? 0 : trie_.find(pattern);
  return ref == 0 ? nullptr : entry_at(ref);
}

EntrySlab::Ref PatternIndex::find_or_create(std::string_view pattern) {
  const Parsed parsed = parse(pattern);
  if (parsed.fits) {
    if (const EntrySlot* slot = find_slot(parsed.key, pattern)) return slot->ref;
  }
  if (!trie_.empty()) {
    if (const EntrySlab::Ref ref = trie_.find(pattern)) return ref;
  }

  const EntrySlab::Ref ref = slab_.allocate(Entry::cell_bytes(pattern.size(), true));
  Entry* entry = Entry::make(slab_.at(ref), pattern, true, nullptr);
  const std::string_view first = first_token(pattern);
  entry->bucket = bucket_of(pattern);

  bool in_table = false;
  if (parsed.fits) {
    std::vector<Shape>& shapes = shapes_like(parsed.shape);
    const uint32_t most = parsed.shape.full ? kMaxFullShapes : kMaxExactShapes;
    auto shape = std::find_if(shapes.begin(), shapes.end(), [&](const Shape& s) { return s.same_as(parsed.shape); });
    if (shape == shapes.end() && shapes.size() < most) shape = shapes.insert(shapes.end(), parsed.shape);
    if (shape != shapes.end()) {
      shape->patterns++;
      table_.insert({tag_of(parsed.key), ref});
      if (parsed.shape.full) full_tokens_max_ = std::max(full_tokens_max_, parsed.shape.tokens);
      in_table = true;
    }
  }
  if (!in_table) trie_.insert(pattern, ref);
  size_++;

  if (is_pwc(first) || pattern == ">") {
    created_wild_++;
  } else if (created_[entry->bucket] < Entry::kMaxAlone) {
    created_[entry->bucket]++;
  }
  touch(*entry);
  return ref;
}

void PatternIndex::touch(const Entry& entry) {
  const std::string_view text = entry.text();
  const bool alone = text.size() == 1 || text[1] == '.';
  if (alone && (text[0] == '*' || text[0] == '>')) changed_wild_++;
  else changed_[entry.bucket]++;
}

void PatternIndex::erase(Entry* entry) {
  const std::string_view pattern = entry->text();
  touch(*entry);
  const Parsed parsed = parse(pattern);
  EntrySlot* slot = parsed.fits ? find_slot(parsed.key, pattern) : nullptr;
  EntrySlab::Ref ref;
  if (slot != nullptr) {
    ref = slot->ref;
    table_.erase(slot);
    std::vector<Shape>& shapes = shapes_like(parsed.shape);
    auto shape = std::find_if(shapes.begin(), shapes.end(), [&](const Shape& s) { return s.same_as(parsed.shape); });
    if (--shape->patterns == 0) {
      shapes.erase(shape);
      if (parsed.shape.full) {
        full_tokens_max_ = 0;
        for (const Shape& s : full_shapes_) full_tokens_max_ = std::max(full_tokens_max_, s.tokens);
      }
    }
  } else {
    ref = trie_.find(pattern);
    trie_.erase(pattern);
  }
  size_--;
  slab_.release(ref, entry->cell_bytes());
}

void PatternIndex::collect(std::string_view subject, std::vector<Entry*>& out) {
  // Cut into tokens; an empty one anywhere and the subject reaches nothing.
  const char* starts[kMaxShapeTokens + 1];
  size_t count = 0;
  const char* at = subject.data();
  const char* const end = at + subject.size();
  if (at == end) return;
  tokens_.clear();
  const bool want_all = !trie_.empty();
  while (true) {
    const auto* dot = static_cast<const char*>(std::memchr(at, '.', static_cast<size_t>(end - at)));
    const char* const stop = dot == nullptr ? end : dot;
    if (stop == at) return;
    if (count < kMaxShapeTokens) {
      starts[count] = at;
      starts[count + 1] = stop + 1;
    }
    if (want_all) tokens_.emplace_back(at, static_cast<size_t>(stop - at));
    count++;
    if (dot == nullptr) break;
    at = dot + 1;
  }

  const std::vector<Shape>* const exact = count <= kMaxShapeTokens ? &exact_shapes_[count] : nullptr;
  const bool have_exact = exact != nullptr && !exact->empty();
  const auto hashed =
      static_cast<uint32_t>(have_exact ? count : std::min<size_t>({count, full_tokens_max_, kMaxShapeTokens}));
  const auto token = [&](uint32_t n) {
    return std::string_view(starts[n], static_cast<size_t>(starts[n + 1] - starts[n] - 1));
  };
  uint64_t hashes[kMaxShapeTokens];
  for (uint32_t n = 0; n < hashed; n++) hashes[n] = hash_(token(n), salt(n));

  // All keys first, so that the table's cache misses overlap.
  uint64_t keys[kMaxExactShapes + kMaxFullShapes];
  const Shape* shapes[kMaxExactShapes + kMaxFullShapes];
  uint32_t candidates = 0;
  const auto add = [&](const Shape& shape) {
    uint64_t sum = 0;
    for (uint32_t bits = shape.literals; bits != 0; bits &= bits - 1) sum ^= hashes[__builtin_ctz(bits)];
    keys[candidates] = hash_.combine(sum, shape.seed);
    table_.prefetch(tag_of(keys[candidates]));
    shapes[candidates++] = &shape;
  };
  if (have_exact) {
    for (const Shape& shape : *exact) add(shape);
  }
  for (const Shape& shape : full_shapes_) {
    if (shape.tokens < count) add(shape);
  }

  // Then all slots, and the entries they lead to.
  const EntrySlot* slots[kMaxExactShapes + kMaxFullShapes];
  uint32_t hits = 0;
  for (uint32_t i = 0; i < candidates; i++) {
    const EntrySlot* slot = table_.find(tag_of(keys[i]), [](const EntrySlot&) { return true; });
    if (slot == nullptr) continue;
    __builtin_prefetch(entry_at(slot->ref));
    slots[hits] = slot;
    keys[hits] = keys[i];
    shapes[hits++] = shapes[i];
  }
  for (uint32_t i = 0; i < hits; i++) {
    const Shape& shape = *shapes[i];
    const auto same = [&](const EntrySlot& slot) {
      const Entry& entry = *entry_at(slot.ref);
      const std::string_view pattern = entry.text();
      if (body_of(pattern).second != shape.full) return false;
      size_t p = 0;
      for (uint32_t n = 0; n < shape.tokens; n++) {
        const bool literal = (shape.literals >> n) & 1;
        const std::string_view want = literal ? token(n) : std::string_view("*");
        if (literal && is_pwc(want)) return false;  // a published `*` equals no literal token
        if (pattern.size() - p < want.size() || std::memcmp(pattern.data() + p, want.data(), want.size()) != 0)
          return false;
        p += want.size();
        if (p == pattern.size()) return n + 1 == shape.tokens && !shape.full;
        if (pattern[p++] != '.') return false;
      }
      return shape.full && p + 1 == pattern.size();
    };
    const EntrySlot* slot = slots[i];
    // Another entry with the same 32 bits may stand in front.
    if (!same(*slot)) [[unlikely]]
      slot = table_.find(tag_of(keys[i]), same);
    if (slot == nullptr) continue;
    Entry* entry = entry_at(slot->ref);
    __builtin_prefetch(entry->only());
    out.push_back(entry);
  }

  if (!want_all) return;
  refs_.clear();
  trie_.collect(tokens_, refs_);
  for (const EntrySlab::Ref ref : refs_) out.push_back(entry_at(ref));
}

uint64_t PatternIndex::memory_bytes() const {
  uint64_t bytes =
      sizeof(*this) + table_.memory_bytes() + trie_.memory_bytes() + full_shapes_.capacity() * sizeof(Shape);
  for (const auto& shapes : exact_shapes_) bytes += shapes.capacity() * sizeof(Shape);
  return bytes + tokens_.capacity() * sizeof(std::string_view) + refs_.capacity() * sizeof(EntrySlab::Ref);
}

}  // namespace peregrine::core
