//! Manifests as `tenure apply -f` takes them, Kubernetes' among them.

use tenure_cli::fuzzing as door;

use super::{Shape, Target};

pub(super) const TARGET: Target = Target {
    name: "manifest",
    reads: "manifests of leases, Kubernetes' too",
    shape: Shape::Text,
    words: &[
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "name",
        "namespace",
        "labels",
        "annotations",
        "items",
        "List",
        "LeaseList",
        "Lease",
        "v1",
        "tenure.dev/v1",
        "coordination.k8s.io/v1",
        "coordination.k8s.io/v1beta1",
        "holderIdentity",
        "leaseDurationSeconds",
        "acquireTime",
        "renewTime",
        "leaseTransitions",
        "strategy",
        "preferredHolder",
        "retention",
        "holder",
        "duration",
        "holderData",
        "forever",
        "15s",
        "1h",
        "null",
        "true",
        "---",
        "{",
        "}",
        "[",
        "]",
        "&a",
        "*a",
        "<<",
        "!!str",
        "|",
        ">",
        "\"",
        "'",
        ": ",
        "- ",
        "\u{feff}",
        "é",
    ],
    mutations: 6_000,
    run,
};

fn run(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    match door::manifest(text) {
        Ok(wanted) => {
            assert!(!wanted.is_empty(), "nothing to apply is an error");
            for (kind, name, duration) in wanted {
                assert!(kind != "lease.coordination.k8s.io" || duration.is_none_or(|duration| duration.as_secs() > 0), "{name}");
            }
            true
        }
        Err(error) => {
            assert!(!error.is_empty());
            false
        }
    }
}
