//! What every node of RabbitMQ reads at its start: its users, so that the Secrets are always right, also where the volumes are older than
//! they.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::siem::secret::account::Account;

/// Key of the cookie in the Secret of the nodes.
pub(crate) const COOKIE: &str = "erlang-cookie";
/// Key of the users in the Secret of the nodes.
pub(crate) const DEFINITIONS: &str = "definitions.json";
/// The virtual host that everything lies in.
pub(crate) const VHOST: &str = "/";

/// The users, as a definitions file.
pub(crate) fn definitions(worker: &Account, admin: &Account, prefix: &str) -> String {
    let user = |account: &Account, tags: &[&str]| {
        json!({
            "name": account.name,
            "password_hash": hash(&account.password),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": tags,
        })
    };
    let permissions = |account: &Account, permissions: Value| {
        let mut all = permissions;
        all["user"] = account.name.clone().into();
        all["vhost"] = VHOST.into();
        all
    };
    json!({
        "vhosts": [{"name": VHOST}],
        "users": [user(worker, &[]), user(admin, &["administrator"])],
        "permissions": [permissions(worker, of_workers(prefix)), permissions(admin, of_admins())],
    })
    .to_string()
}

/// What workers may do: all with the queues and exchanges of their prefix, and write by the default exchange.
pub(crate) fn of_workers(prefix: &str) -> Value {
    let own = format!(r"{prefix}(\..*)?");
    json!({"configure": format!("^{own}$"), "write": format!(r"^({own}|amq\.default)$"), "read": format!("^{own}$")})
}

/// What the operator may do.
pub(crate) fn of_admins() -> Value {
    json!({"configure": ".*", "write": ".*", "read": ".*"})
}

/// RabbitMQ's hash of a password: the salt, and the SHA-256 of salt and password. The salt follows from the password, so that the same
/// password makes the same file; it has 192 random bits, so no table of such hashes can be made before.
pub(crate) fn hash(password: &str) -> String {
    let salt = &Sha256::digest(format!("salt of {password}"))[..4];
    STANDARD.encode([salt, &Sha256::digest([salt, password.as_bytes()].concat())].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_hashed_as_rabbitmq_does() {
        let decoded = STANDARD.decode(hash("hunter2")).unwrap();

        let (salt, digest) = decoded.split_at(4);
        assert_eq!(digest, &Sha256::digest([salt, b"hunter2"].concat())[..]);
        assert_eq!(hash("hunter2"), hash("hunter2"));
    }

    #[test]
    fn workers_reach_what_has_their_prefix_and_nothing_else() {
        let permissions = of_workers("redoubt");

        let may = |what: &str, name: &str| regex::Regex::new(permissions[what].as_str().unwrap()).unwrap().is_match(name);
        for (what, name, expected) in [
            ("configure", "redoubt", true),
            ("read", "redoubt.events.process", true),
            ("write", "amq.default", true),
            ("configure", "amq.default", false),
            ("read", "redoubtable", false),
            ("write", "other.redoubt", false),
        ] {
            assert_eq!(may(what, name), expected, "{what} {name}");
        }
    }
}
