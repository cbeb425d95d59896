// The NATS grammar: what it builds is compared as JSON, which is also what the digest is made of.
#include "config/parser.h"

#include <gtest/gtest.h>

#include "tests/config/world.h"

namespace peregrine::config::test {
namespace {

TEST(Conf, SeparatorsAndComments) {
  EXPECT_EQ(json_of("port 4222"), R"({"port":4222})");
  EXPECT_EQ(json_of("port: 4222\nhost = a\n"), R"({"host":"a","port":4222})");
  EXPECT_EQ(json_of("a:1;b=2, c 3\r\nd: 4"), R"({"a":1,"b":2,"c":3,"d":4})");
  EXPECT_EQ(json_of("# one\n// two\na: 1 # three\nb: 2 // four\n#"), R"({"a":1,"b":2})");
  EXPECT_EQ(json_of("m { a 1\n# x\nb: 2 // y\n c = 3; d: 4 }"), R"({"m":{"a":1,"b":2,"c":3,"d":4}})");
  EXPECT_EQ(json_of("m: {a:1,b:2,}"), R"({"m":{"a":1,"b":2}})");
  EXPECT_EQ(json_of("m = {\n}\n"), R"({"m":{}})");
  EXPECT_EQ(json_of("m\n{\na\n1\n}"), R"({"m":{"a":1}})");
  EXPECT_EQ(json_of("m { a:\n 1 }"), R"({"m":{"a":1}})") << "inside a map the value may stand on the next line";
  EXPECT_EQ(json_of("\"a b\": 1\n'c d': 2"), R"({"a b":1,"c d":2})");
  EXPECT_EQ(json_of(""), "{}");
}

TEST(Conf, WhiteSpaceIsUnicodes) {
  EXPECT_EQ(json_of("\u00a0\u2003\u2005\u3000a: 1"), R"({"a":1})");
  EXPECT_EQ(json_of("\xef\xbb\xbfport: 4222"), R"({"port":4222})") << "byte order mark";
}

TEST(Conf, JsonIsAValidFile) {
  EXPECT_EQ(json_of(R"({ "port": 4567 })"), R"({"port":4567})");
  EXPECT_EQ(json_of("{\n  \"a\": {\"b\": [1, 2, {\"c\": true}]},\n  \"d\": \"x\"\n}\n"),
            R"({"a":{"b":[1,2,{"c":true}]},"d":"x"})");
  EXPECT_EQ(json_of("{ \"a\": 1 }\n# done\n"), R"({"a":1})");
  EXPECT_EQ(json_of("a: 1\n}\n"), R"({"a":1})") << "a last brace without its first";
}

TEST(Conf, Arrays) {
  EXPECT_EQ(json_of("a: [1, 2, 3]"), R"({"a":[1,2,3]})");
  EXPECT_EQ(json_of("a: [1,2,]"), R"({"a":[1,2]})");
  EXPECT_EQ(json_of("a [\n 'x'\n \"y\" # c\n // d\n z\n]"), R"({"a":["x","y","z"]})");
  EXPECT_EQ(json_of("users = [\n {user: a}\n {user: b}\n]"), R"({"users":[{"user":"a"},{"user":"b"}]})") << "no commas";
  EXPECT_EQ(json_of("a: [[1], [], ['x', {b: 2}]]"), R"({"a":[[1],[],["x",{"b":2}]]})");
}

TEST(Conf, Strings) {
  EXPECT_EQ(json_of(R"(a: "x\ty\n\"\\\x41")"), R"({"a":"x\ty\n\"\\A"})");
  EXPECT_EQ(json_of(R"(a: 'x\ty')"), R"({"a":"x\\ty"})");
  EXPECT_EQ(json_of("a: nats://u:p@h:1/x?y"), R"({"a":"nats://u:p@h:1/x?y"})");
  EXPECT_EQ(json_of("a: foo.*.>"), "{\"a\":\"foo.*.\\u003e\"}");
  EXPECT_EQ(json_of("a: foo#bar"), R"({"a":"foo#bar"})");
  EXPECT_EQ(json_of("a: foo\\tbar"), R"({"a":"foo\tbar"})") << "escapes work in bare words, too";
  EXPECT_EQ(json_of("a: ''\nb: \"\"\nc: 'x\ny'"), R"({"a":"","b":"","c":"x\ny"})");
  EXPECT_EQ(json_of("a: (\none\n  two\n)\nb: 1"), R"({"a":"\none\n  two\n","b":1})") << "block";
  EXPECT_EQ(json_of("a: (\n (x)\n ) y\n)"), R"({"a":"\n (x)\n ) y\n"})") << "only a bracket alone on its line ends it";
}

TEST(Conf, BooleansAreBareWords) {
  EXPECT_EQ(json_of("a: true\nb: YES\nc: On\nd: false\ne: no\nf: OFF"),
            R"({"a":true,"b":true,"c":true,"d":false,"e":false,"f":false})");
  EXPECT_EQ(json_of("a: \"true\"\nb: 'no'"), R"({"a":"true","b":"no"})");
}

TEST(Conf, Numbers) {
  EXPECT_EQ(json_of("a: -1\nb: 64MB\nc: 8MiB\nd: 10GiB\ne: 1Gb\nf: 128KB\ng: 2k"),
            R"({"a":-1,"b":67108864,"c":8388608,"d":10737418240,"e":1073741824,"f":131072,"g":2000})");
  EXPECT_EQ(json_of("a: 1.5\nb: -0.25\nc: 10.0"), R"({"a":1.5,"b":-0.25,"c":10})");
  EXPECT_EQ(json_of("a: 0.0000001\nb: 123456789012345678901234.5"), R"({"a":1e-7,"b":1.2345678901234569e+23})");
  EXPECT_EQ(json_of("a: 2s\nb: 100ms\nc: 127.0.0.1\nd: 127.0.0.1:4222\ne: 1h30m"),
            R"({"a":"2s","b":"100ms","c":"127.0.0.1","d":"127.0.0.1:4222","e":"1h30m"})");
  EXPECT_EQ(json_of("a: 300ms\nb: 5m\nc: 1e5\nd: 1k5"), R"({"a":"300ms","b":5000000,"c":"1e5","d":"1k5"})")
      << "a bare 5m is five million";
  EXPECT_EQ(json_of("a: 2016-05-04T18:53:41Z"), R"({"a":"2016-05-04T18:53:41Z"})");
}

TEST(Conf, LastOfEqualKeysWins) {
  EXPECT_EQ(json_of("a: 1\nb: 2\na: 3"), R"({"a":3,"b":2})");
  EXPECT_EQ(json_of("m {a: 1, a: 2}"), R"({"m":{"a":2}})");
}

TEST(Conf, ErrorsSayWhere) {
  EXPECT_EQ(json_of("a: 1\nb:\n"), "main.conf:2:3: Expected value but found new line");
  EXPECT_EQ(json_of("a: x y"),
            "main.conf:1:6: Expected a top-level value to end with a new line, comment or EOF, but got 'y' instead.");
  EXPECT_EQ(json_of("{ a: x y }"),
            "main.conf:1:8: Expected a block-level value to end with a new line, comment or EOF, but got 'y' instead.");
  EXPECT_EQ(json_of("m {\n  a: x y }"),
            "main.conf:2:8: Expected a map value terminator ',' or a map terminator '}', but got 'y' instead.");
  EXPECT_EQ(json_of("a: ['x' 'y']"),
            "main.conf:1:9: Expected an array value terminator ',' or an array terminator ']', but got ''' instead.");
  EXPECT_EQ(json_of("a: [,]"), "main.conf:1:5: Unexpected array value terminator ','.");
  EXPECT_EQ(json_of("a: \"x"), "main.conf:1:6: Unexpected EOF.");
  EXPECT_EQ(json_of("a: (x"), "main.conf:1:6: Unexpected EOF processing block.");
  EXPECT_EQ(json_of("m { a: 1\n"), "main.conf:2:1: Unexpected EOF processing map.");
  EXPECT_EQ(json_of("a: [1\n"), "main.conf:2:1: Unexpected EOF processing array.");
  EXPECT_EQ(json_of("{ a: 1\n"), "main.conf:2:1: Unexpected EOF, the '}' of the file is missing.");
  EXPECT_EQ(json_of("a"), "main.conf:1:2: config is invalid: no value for \"a\"");
  EXPECT_EQ(json_of(": 1"), "main.conf:1:1: Unexpected key separator ':'");
  EXPECT_EQ(json_of("a: .5"), "main.conf:1:4: Floats must start with a digit");
  EXPECT_EQ(json_of("a: 1."), "main.conf:1:6: Floats must have a digit after the '.', but got 'EOF' instead.");
  EXPECT_EQ(json_of("a: -x"), "main.conf:1:5: Expected a digit but got 'x'.");
  EXPECT_EQ(json_of("a: 12-3"), "main.conf:1:6: All ISO8601 dates must be in full Zulu form.");
  EXPECT_EQ(json_of("a: 2006-13-02T15:04:05Z"),
            "main.conf:1:24: expected Zulu formatted DateTime, but got '2006-13-02T15:04:05Z'");
  EXPECT_EQ(json_of("a: \"\\q\""),
            "main.conf:1:7: Invalid escape character 'q'. Only the following escape characters are allowed: "
            "\\xXX, \\t, \\n, \\r, \\\", \\\\.");
  EXPECT_EQ(json_of("a: \"\\xZZ\""), "main.conf:1:7: Expected two hexadecimal digits after '\\x', but got 'ZZ'");
  EXPECT_EQ(json_of("a: 9223372036854775808"), "main.conf:1:23: integer '9223372036854775808' is out of the range");
  EXPECT_EQ(json_of(std::string("a: 1\nb\0", 7)), "main.conf:2:2: a NUL byte: this is not a text file");
  EXPECT_EQ(json_of(std::string(5000, '[')).substr(0, 13), "main.conf:1:5");
  EXPECT_NE(json_of("a: " + std::string(5000, '[')).find("nested too deeply"), std::string::npos);
}

TEST(Conf, MembersStandWhereTheirKeyStands) {
  const Result<Value> tree = tree_of("a: 1\n\n  b {\n    c: [x,\n y]\n}");
  ASSERT_TRUE(tree);
  const Value* b = tree->find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(to_string(b->position), "main.conf:3:3");
  const Value* c = b->find("c");
  ASSERT_NE(c, nullptr);
  EXPECT_EQ(to_string(c->position), "main.conf:4:5");
  EXPECT_EQ(to_string(c->items.at(0).position), "main.conf:4:9");
  EXPECT_EQ(to_string(c->items.at(1).position), "main.conf:5:2");
}

TEST(Include, MergesKeysWhereItStands) {
  World world;
  world.files["sub/users.conf"] = "users: [{user: a}]\ninclude 'more.conf'\n";
  world.files["sub/more.conf"] = "timeout: 2";
  EXPECT_EQ(json_of("port: 1\nauthorization {\n  include ./sub/users.conf\n  token: x\n}\n", "main.conf", world),
            R"({"authorization":{"timeout":2,"token":"x","users":[{"user":"a"}]},"port":1})");
  EXPECT_EQ(json_of("include \"sub/more.conf\"; a: 1", "main.conf", world), R"({"a":1,"timeout":2})");
  EXPECT_EQ(json_of("INCLUDE sub/more.conf", "main.conf", world), R"({"timeout":2})");
}

TEST(Include, IsRelativeToTheIncludingFile) {
  World world;
  world.files["etc/b.conf"] = "b: 1";
  EXPECT_EQ(json_of("include b.conf", "etc/a.conf", world), R"({"b":1})");
  EXPECT_EQ(json_of("include ../etc/b.conf", "etc/a.conf", world), R"({"b":1})");
  world.files["/abs/c.conf"] = "c: 1";
  EXPECT_EQ(json_of("include /abs/c.conf", "etc/a.conf", world), R"({"c":1})");
}

TEST(Include, IsAKeyWhenAnotherSeparatorFollows) {
  EXPECT_EQ(json_of("include: 5"), R"({"include":5})");
  EXPECT_EQ(json_of("m { include=5 }"), R"({"m":{"include":5}})");
}

TEST(Include, PicksTheGrammarByTheEnding) {
  World world;
  world.files["a.yaml"] = "a:\n  - 1\n  - 2\n";
  EXPECT_EQ(json_of("include a.yaml\nb: 3", "main.conf", world), R"({"a":[1,2],"b":3})");
  world.files["b.conf"] = "b { c: 1 }";
  EXPECT_EQ(json_of("include: b.conf\na: 1\n", "main.yaml", world), R"({"a":1,"b":{"c":1}})");
  EXPECT_EQ(json_of("x:\n  include: [a.yaml, b.conf]\n", "main.yaml", world), R"({"x":{"a":[1,2],"b":{"c":1}}})");
}

TEST(Include, Errors) {
  EXPECT_EQ(json_of("a: 1\ninclude gone.conf"),
            "main.conf:2:18: error parsing include file 'gone.conf', open gone.conf: no such file or directory");
  World world;
  world.files["bad.conf"] = "x:\n";
  EXPECT_EQ(json_of("include bad.conf", "main.conf", world),
            "main.conf:1:17: error parsing include file 'bad.conf', bad.conf:1:3: Expected value but found new line");
  EXPECT_EQ(json_of("include {"), "main.conf:1:9: Expected include value but found start of a map");
  EXPECT_EQ(json_of("include 5"), "main.conf:1:9: Expected include value but found start of a number");
  EXPECT_NE(json_of("include main.conf").find("main.conf includes itself"), std::string::npos);
  world.files["b.conf"] = "include ./main.conf";
  EXPECT_NE(json_of("include b.conf", "main.conf", world).find("main.conf includes itself"), std::string::npos);
}

TEST(Variable, IsSearchedOutwards) {
  EXPECT_EQ(json_of("x: 1\na: $x"), R"({"a":1,"x":1})");
  EXPECT_EQ(json_of("x: 1\nm { n { a: $x } }"), R"({"m":{"n":{"a":1}},"x":1})");
  EXPECT_EQ(json_of("x: 1\nm { x: 2, n { a: $x } }\nb: $x"), R"({"b":1,"m":{"n":{"a":2},"x":2},"x":1})");
  EXPECT_EQ(json_of("x: 1\nl: [ $x, { a: $x } ]"), R"({"l":[1,{"a":1}],"x":1})");
  EXPECT_EQ(json_of("x: {a: [1]}\ny: $x"), R"({"x":{"a":[1]},"y":{"a":[1]}})");
}

TEST(Variable, OnlySeesKeysBeforeIt) {
  EXPECT_EQ(json_of("a: $x\nx: 1"), "main.conf:1:6: variable reference for 'x' on line 1 can not be found");
  EXPECT_EQ(json_of("x: 1\na: $x\nx: 2"), R"({"a":1,"x":2})");
}

TEST(Variable, QuotesAndBcryptAreNot) {
  EXPECT_EQ(json_of("a: \"$x\"\nb: '$y'\nc: x$y"), R"({"a":"$x","b":"$y","c":"x$y"})");
  EXPECT_EQ(json_of("p: $2a$11$W2zko751KUvVy59mUTWmpOdWjpEm5qhcCZRd05GjI/sSOT.xtiHyG"),
            R"({"p":"$2a$11$W2zko751KUvVy59mUTWmpOdWjpEm5qhcCZRd05GjI/sSOT.xtiHyG"})");
}

TEST(Variable, ComesFromTheEnvironmentAsAConfigValue) {
  World world;
  world.variables = {{"N", "4222"}, {"S", "'5'"},  {"L", "[1, 'a']"}, {"M", "{a: 1, b: [2]}"},
                     {"B", "off"},  {"E", ""},     {"R", "$N"},       {"Q", "$S"},
                     {"C1", "$C2"}, {"C2", "$C1"}, {"BAD", "[1"},     {"SIZE", "64MB"}};
  EXPECT_EQ(json_of("a: $N\nb: $S\nc: $L\nd: $M\ne: $B\nf: $E\ng: $R\nh: $Q\ni: $SIZE", "main.conf", world),
            R"({"a":4222,"b":"5","c":[1,"a"],"d":{"a":1,"b":[2]},"e":false,"f":"","g":4222,"h":"5","i":67108864})");
  EXPECT_NE(json_of("a: $C1", "main.conf", world).find("variable reference cycle for 'C1'"), std::string::npos);
  EXPECT_NE(json_of("a: $BAD", "main.conf", world).find("variable reference for 'BAD' on line 1 could not be parsed"),
            std::string::npos);
  EXPECT_EQ(json_of("N: 1\na: $N", "main.conf", world), R"({"N":1,"a":1})") << "the file wins over the environment";
}

TEST(Variable, OfAnIncludedFileIsVisibleAfterwards) {
  World world;
  world.files["vars.conf"] = "x: 7";
  EXPECT_EQ(json_of("include vars.conf\na: $x", "main.conf", world), R"({"a":7,"x":7})");
  world.files["uses.conf"] = "b: $x";
  EXPECT_NE(json_of("x: 7\ninclude uses.conf", "main.conf", world).find("can not be found"), std::string::npos)
      << "an included file does not see its includer";
}

TEST(Variable, CannotMultiplyWithoutBound) {
  std::string text = "a: [1,2,3,4,5,6,7,8,9,10]\n";
  for (char name = 'b'; name < 'm'; ++name) {
    const std::string before = std::string("$") + static_cast<char>(name - 1);
    text += std::string(1, name) + ": [";
    for (int i = 0; i < 10; ++i) text += before + ",";
    text += "]\n";
  }
  EXPECT_NE(json_of(text).find("too many values"), std::string::npos);
}

TEST(Digest, IsTheOneNatsServerShows) {
  // Taken from nats-server 2.15.1 -t of the same files.
  const auto digest_of = [](const std::string& text) { return digest(*tree_of(text)); };
  EXPECT_EQ(digest_of("{ port: 1 }\n"), "sha256:5b27b68e52c25859a76c94f378c31d5a499ca677a46b38fb5f58ded229b59650");
  EXPECT_EQ(digest_of("server_tags: [a,b]\n"),
            "sha256:e09a48bacda8a05513e0da3231f1cef15d6c5fc6831f9a9b17c803c10209238c");
  EXPECT_EQ(digest_of("server_metadata: {a:(\nabc\n)\n}"),
            "sha256:98fb7fa2211d414c008cc0892254afda42361603c0e21c3a7ae87e572c278f35");
  EXPECT_EQ(digest_of("x: 1k5\nlisten: 4222\n"),
            "sha256:f59c9f7fa5b4904f2d4635e19d116ce6afb31adb9c391bf6380babca63a8da7d");
}

TEST(Json, EscapesLikeGo) {
  EXPECT_EQ(json_of("a: \"<&>\x01\x7f\u2028\""), "{\"a\":\"\\u003c\\u0026\\u003e\\u0001\x7f\\u2028\"}");
  EXPECT_EQ(json_of("a: \"\xff\xc3\""), "{\"a\":\"\\ufffd\\ufffd\"}");
}

}  // namespace
}  // namespace peregrine::config::test
