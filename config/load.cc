#include "config/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "config/characters.h"
#include "config/keys.h"
#include "config/validate.h"

namespace peregrine::config {
namespace {

void sort_by_position(std::vector<Problem>& problems) {
  std::stable_sort(problems.begin(), problems.end(), [](const Problem& a, const Problem& b) {
    const std::string& file_a = a.position.file ? *a.position.file : std::string();
    const std::string& file_b = b.position.file ? *b.position.file : std::string();
    return std::tie(file_a, a.position.line, a.position.column) < std::tie(file_b, b.position.line, b.position.column);
  });
}

void note_positions(const Section& section, const Value& map, const std::string& prefix,
                    std::map<std::string, Position>& positions) {
  for (const Member& member : map.members) {
    const Key* key = section.find(to_lower(member.key));
    if (key == nullptr) continue;
    const std::string name = prefix + key->names[0];
    positions[name] = member.value.position;
    if (key->section == nullptr || key->named) continue;
    note_positions(*key->section, member.value, name + ".", positions);
    for (std::size_t n = 0; n < member.value.items.size(); ++n) {
      const std::string item = fmt::format("{}[{}]", name, n);
      positions[item] = member.value.items[n].position;
      note_positions(*key->section, member.value.items[n], item + ".", positions);
    }
  }
}

}  // namespace

LoadedFile load_file(const std::string& path, const Sources& sources) {
  Result<Value> tree = read_file(path, sources);
  if (!tree) {
    LoadedFile failed;
    failed.errors.push_back({{}, tree.error()});
    return failed;
  }
  LoadedFile loaded = load_tree(*tree);
  loaded.options.config_file = path;
  loaded.options.config_digest = digest(*tree);
  if (tree->members.empty()) loaded.warnings.push_back({{}, path + ": config has no values or is empty"});
  return loaded;
}

LoadedFile load_tree(const Value& tree, bool refuse_unsupported) {
  LoadedFile loaded;
  Binder binder;
  binder.bind(options_section(), &loaded.options, tree);
  loaded.errors = binder.errors();
  loaded.warnings = binder.warnings();
  if (refuse_unsupported) {
    const std::vector<Problem> refused = unsupported(options_section(), tree);
    loaded.errors.insert(loaded.errors.end(), refused.begin(), refused.end());
  }
  note_positions(options_section(), tree, "", loaded.positions);
  sort_by_position(loaded.errors);
  sort_by_position(loaded.warnings);
  return loaded;
}

void finish(LoadedFile& loaded, const MoreChecks& more) {
  complete(loaded.options);
  Findings findings = validate(loaded.options);
  if (findings.errors.empty() && more) {
    Findings others = more(loaded.options);
    std::move(others.errors.begin(), others.errors.end(), std::back_inserter(findings.errors));
    std::move(others.warnings.begin(), others.warnings.end(), std::back_inserter(findings.warnings));
  }
  const auto add = [&](const std::vector<Finding>& found, std::vector<Problem>& problems) {
    for (const Finding& finding : found) {
      const auto position = loaded.positions.find(finding.option);
      problems.push_back({position == loaded.positions.end() ? Position{} : position->second, finding.text});
    }
  };
  add(findings.errors, loaded.errors);
  add(findings.warnings, loaded.warnings);
}

std::string to_text(const std::vector<Problem>& problems) {
  std::string text;
  for (const Problem& problem : problems) {
    if (!text.empty()) text += '\n';
    text += problem.to_string();
  }
  return text;
}

}  // namespace peregrine::config
