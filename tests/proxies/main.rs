//! A client, a real Envoy, nginx, Caddy, HAProxy or Traefik, the service, an upstream that answers with what it saw.

#[path = "../support/mod.rs"]
mod support;

mod bootstraps;
mod c_core;
mod connections;
mod demo;
mod denials;
mod envoy;
mod forward_auth;
mod http;
mod identity;
mod paths;
mod raw;
mod readings;
mod replicas;
mod revocations;
mod rollout;
mod tokens;
