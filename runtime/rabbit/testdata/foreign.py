"""A client that is not Rabbet's: pika, and what the wire's description says.

    foreign.py URL NAMESPACE call    calls "echo" 50 times, one message for each
    foreign.py URL NAMESPACE serve   answers the key "theirs" until stdin ends
    foreign.py URL NAMESPACE odd     publishes what nobody should publish

It prints one JSON value a line.
"""
import datetime
import decimal
import json
import sys
import threading

import pika

url, namespace, verb = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
requests, events = namespace + ".requests", namespace + ".events"


def show(value):
    print(json.dumps(value), flush=True)


def call():
    many = 50
    queue = channel.queue_declare("", exclusive=True).method.queue
    for i in range(many):
        channel.basic_publish(requests, "echo", b'{"n":%d}' % i,
                              pika.BasicProperties(reply_to=queue, correlation_id=str(i)))
    channel.basic_publish(requests, "echo", b'"fail"', pika.BasicProperties(reply_to=queue, correlation_id="fail"))
    for _, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=60):
        if properties is None:
            sys.exit("a reply is missing")
        show({"id": properties.correlation_id, "type": properties.content_type, "body": body.decode(),
              "error": (properties.headers or {}).get("rabbet-error", "")})
        many -= 1
        if many < 0:
            break
    channel.cancel()


def serve():
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, requests, "theirs")

    def answer(_channel, method, properties, body):
        reply = {"got": json.loads(body), "type": properties.content_type}
        channel.basic_publish("", properties.reply_to, json.dumps(reply).encode(),
                              pika.BasicProperties(correlation_id=properties.correlation_id))
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(queue, answer)

    def until_stdin_ends():
        sys.stdin.read()
        connection.add_callback_threadsafe(channel.stop_consuming)

    threading.Thread(target=until_stdin_ends, daemon=True).start()
    show("ready")
    channel.start_consuming()


def odd():
    headers = {
        "number": 7, "yes": True, "nothing": None, "half": decimal.Decimal("0.5"), "bytes": b"\xff\x00",
        "when": datetime.datetime(2026, 1, 2, 3, 4, 5), "list": [1, "two", [3, {"four": 4}]],
        "table": {"a": {"b": {"c": [None, -1]}}}, "rabbet-attempt": "third", "rabbet-not-before": [1],
        "traceparent": {"x": 1}, "cloudEvents_id": 5, "x-death": "made up",
    }
    channel.confirm_delivery()
    channel.basic_publish(events, "order.made", b'{"id":"headers"}', pika.BasicProperties(headers=headers))
    channel.basic_publish(events, "order.made", b'{"id":\xff\xfe', pika.BasicProperties(message_id="undecodable"))
    channel.basic_publish(events, "order.made", b"")
    channel.basic_publish(requests, "echo", b'"to a queue that is gone"', pika.BasicProperties(reply_to="amq.gen-gone", correlation_id="1"))
    channel.basic_publish(requests, "echo", b'"to nobody"')
    show("done")


{"call": call, "serve": serve, "odd": odd}[verb]()
connection.close()
