"""The tutorial's super-cluster: its two files as they stand, four hosts with its addresses, curl's four answers."""

import os
import time

from broker import until
from nodes import Node
from registry import check, equal
from world import World

FILE_A = """\
cluster {
  name: "cluster-a"
  listen: 0.0.0.0:6222
  routes = [
    nats://172.23.0.2:6222
    nats://172.23.0.3:6222
  ]
}

gateway {
  name: "cluster-a"
  listen: "0.0.0.0:7222"

  gateways = [
    {name: "cluster-b", urls: ["nats://172.24.0.2:7222"]},
  ]
}

http_port: 8222
"""
FILE_B = """\
cluster {
  name: "cluster-b"
  listen: 0.0.0.0:6224
  routes = [
    nats://172.24.0.2:6222
    nats://172.24.0.3:6222
  ]
}

gateway {
  name: "cluster-b"
  listen: "0.0.0.0:7222"

  gateways = [
    {name: "cluster-a", url: "nats://172.23.0.2:7222"}
  ]
}

http_port: 8222
"""
FILE_A_YAML = """\
cluster:
  name: cluster-a
  listen: 0.0.0.0:6222
  routes: ["nats://172.23.0.2:6222", "nats://172.23.0.3:6222"]
gateway:
  name: cluster-a
  listen: 0.0.0.0:7222
  gateways:
    - name: cluster-b
      urls: ["nats://172.24.0.2:7222"]
http_port: 8222
"""
HOSTS = {"a1": "172.23.0.2", "a2": "172.23.0.3", "b1": "172.24.0.2", "b2": "172.24.0.3"}


def run(mix, file_b, mended, yaml=False):
    """mix: the programs of a1 and a2, of b1 and b2."""
    with World(list(HOSTS)) as world:
        nodes = {}
        try:
            for host, program in zip(world.hosts, [program for cluster in mix for program in cluster]):
                # One wire for both networks: every host of the tutorial is in both.
                host.run("ip", "addr", "add", HOSTS[host.name] + "/12", "dev", "eth0")
                node = Node(host.name, program, host)
                node.config = FILE_A if host.name[0] == "a" else file_b
                if yaml and program.own and host.name[0] == "a":
                    node.config, node.format = FILE_A_YAML, "yaml"
                nodes[host.name] = node
            for node in nodes.values():
                node.start()

            def gateways(name):
                seen = nodes[name].get_json("/gatewayz")
                return sorted(seen["outbound_gateways"]), {k: len(v) for k, v in seen["inbound_gateways"].items()}

            def complete():
                return all(gateways(name)[0] == ["cluster-b" if name[0] == "a" else "cluster-a"] for name in nodes)
            check(until(complete, 20, 0.1), f"outbound gateways: { {name: gateways(name) for name in nodes} }")
            inbound = {side: sum(gateways(name)[1].get("cluster-b" if side == "a" else "cluster-a", 0) for name in nodes if name[0] == side)
                       for side in "ab"}
            equal(inbound, {"a": 2, "b": 2}, "inbound gateway connections of the clusters")
            routes = {name: len(nodes[name].routes()) for name in nodes}
            # As it stands, cluster B's file listens for routes on 6224 and dials 6222: its nodes do not find each other.
            equal(routes, {"a1": 1, "a2": 1, "b1": int(mended), "b2": int(mended)}, "routes")
            for name, node in nodes.items():
                if node.program.own and not mended and name[0] == "b":
                    check(until(lambda n=node: "listens for routes on port 6224" in n.log(), 10, 0.1), f"{name} says nothing of its port:\n{node.log()}")
            # Somebody in cluster B serves; everybody in A reaches him.
            server = nodes["b1"].client()
            server.sub("service", on=lambda m: server.publish(m.reply, b"from b1"))
            time.sleep(0.5)
            for name in ("a1", "a2"):
                client = nodes[name].client()
                inbox = client.sub(f"_INBOX.{name}", flush=False)
                client.publish("service", b"?", reply=f"_INBOX.{name}")
                equal([m.payload for m in inbox.wait(1)], [b"from b1"], f"the answer at {name}")
                client.close()
            server.close()
        finally:
            if os.environ.get("GATEWAY_LOGS"):
                for node in nodes.values():
                    print(f"==== {node.name}\n{node.log()}")
            for node in nodes.values():
                node.remove()


def as_it_stands(mix):
    run(mix, FILE_B, mended=False)


def with_the_port_put_right(mix):
    run(mix, FILE_B.replace("6224", "6222"), mended=True)


def in_yaml(mix):
    run(mix, FILE_B.replace("6224", "6222"), mended=True, yaml=True)
