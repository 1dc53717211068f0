//! Reflection and health, beside the checks on the gRPC port.

use std::time::Duration;

use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::fixtures::inline;
use crate::support::{Service, header_map_request, wait_until};

#[tokio::test]
async fn reflection_and_health_say_what_is_there() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    let service = Service::ready(&inline("")).await;
    let channel = Channel::from_shared(format!("http://{}", service.grpc)).unwrap().connect_lazy();
    let ask = async |message| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        let (send, receive) = tokio::sync::mpsc::channel(1);
        send.send(request).await.unwrap();
        let mut client = ServerReflectionClient::new(channel.clone());
        let requests = tokio_stream_of(receive);
        let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
        let ServerReflectionResponse { message_response, .. } = answers.message().await.unwrap().unwrap();
        // The stream stays open on purpose: a drain must not wait for it.
        tokio::spawn(async move {
            let _open = (send, answers.message().await);
        });
        message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("a list")
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let want = [
        "envoy.service.auth.v3.Authorization",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ];
    assert_eq!(names, want);
    let symbol = MessageRequest::FileContainingSymbol("envoy.service.auth.v3.CheckRequest".to_owned());
    assert!(matches!(ask(symbol).await, MessageResponse::FileDescriptorResponse(_)));

    let mut health = HealthClient::new(channel);
    for service in ["", "envoy.service.auth.v3.Authorization"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(health.check(request.clone()).await.unwrap().into_inner().status, 1, "{service}");
        let mut watch = health.watch(request).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    }
    let begun = tokio::time::Instant::now();
    assert!(service.end().await.is_ok());
    assert!(begun.elapsed() < Duration::from_secs(25), "open streams hold up no drain of 30 s");
}

/// Streams that stay open hold memory: a connection has a few of them, and each that ends makes room.
#[tokio::test]
async fn a_connection_has_few_open_streams_of_these_services() {
    let service = Service::ready(&inline("")).await;
    let channel = Channel::from_shared(format!("http://{}", service.grpc)).unwrap().connect_lazy();
    let mut health = HealthClient::new(channel.clone());
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(health.watch(HealthCheckRequest::default()).await.unwrap().into_inner());
    }
    let refused = health.watch(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let checked = service.send(header_map_request("GET", "h", "/", &[])).await;
    assert_eq!(checked.code(), "token_missing", "checks have places of their own");
    open.clear();
    wait_until("room again", || async {
        let mut health = HealthClient::new(channel.clone());
        health.check(HealthCheckRequest::default()).await.is_ok()
    })
    .await;
}

fn tokio_stream_of<T: Send + 'static>(
    mut receive: tokio::sync::mpsc::Receiver<T>,
) -> impl futures_util::Stream<Item = T> + Send + 'static {
    futures_util::stream::poll_fn(move |context| receive.poll_recv(context))
}
