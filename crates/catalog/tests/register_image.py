# Reads a list of register-image inputs on standard input, and says of each, as one JSON text a line, what AWS's own
# client makes of it: its complaints, or the query that it would send.
import json
import sys

from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator

model = ServiceModel(Loader().load_service_model("ec2", "service-2"), "ec2")
operation = model.operation_model("RegisterImage")


def unknown_words(value, shape, path):
    """Values that the model's lists of words do not have: the client leaves these to the service."""
    if shape.type_name == "structure":
        for key, member in value.items():
            if key in shape.members:
                yield from unknown_words(member, shape.members[key], f"{path}.{key}")
    elif shape.type_name == "list":
        for index, item in enumerate(value):
            yield from unknown_words(item, shape.member, f"{path}[{index}]")
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{path}: {value!r} is none of {shape.enum}"


for request in json.load(sys.stdin):
    report = ParamValidator().validate(request, operation.input_shape)
    complaints = [report.generate_report()] if report.has_errors() else []
    if not complaints:
        complaints += unknown_words(request, operation.input_shape, "")
    query = None
    if not complaints:
        query = create_serializer("ec2").serialize_to_request(request, operation)["body"]
    print(json.dumps({"complaints": complaints, "query": query}))
