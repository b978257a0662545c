# Reads a list on standard input, and says of each entry, as one JSON text a line, what AWS's own client makes of it: of an input of
# RegisterImage its complaints, or the query that it would send; of {"DescribeImages": …}, an answer of that call, its complaints.
import json
import sys

from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator

model = ServiceModel(Loader().load_service_model("ec2", "service-2"), "ec2")
operation = model.operation_model("RegisterImage")
answer = model.operation_model("DescribeImages").output_shape


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
    described = request.get("DescribeImages")
    value, shape = (request, operation.input_shape) if described is None else (described, answer)
    report = ParamValidator().validate(value, shape)
    complaints = [report.generate_report()] if report.has_errors() else []
    if not complaints:
        complaints += unknown_words(value, shape, "")
    query = None
    if not complaints and described is None:
        query = create_serializer("ec2").serialize_to_request(request, operation)["body"]
    print(json.dumps({"complaints": complaints, "query": query}))
