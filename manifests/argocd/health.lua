-- Health of a Camera, Pipeline or StorageNode for Argo CD: the same script for the three kinds. Not YAML and not applied:
-- it goes into argocd-cm, see docs/gitops.md. Argo CD runs it as Lua 5.1 with the functions of the base and table
-- libraries only, `obj` being the object; tests/gitops.rs runs it over every condition of docs/conditions.md.

-- Conditions that are False and yet as asked for: nothing is wrong, nothing is under way.
local resting = { NotSelected = true, NoCameras = true, NoCamerasSelected = true }
-- Those of a Pipeline that a person has paused.
local suspended = { Paused = true, Stopped = true }
-- On its way by itself, into a Pipeline or out of it.
local progressing = { RollingOut = true, Starting = true, PodMissing = true, Draining = true }
-- Of a Pipeline: on its way while its instances are.
local starting = { SomeNotCapturing = true, NoneCapturing = true }

local status = obj.status
local generation = obj.metadata.generation
if status == nil or status.conditions == nil then
  return { status = "Progressing", message = "waiting for the operator" }
end

local ready
for _, condition in ipairs(status.conditions) do
  if condition.type == "Ready" then
    ready = condition
  end
end
if ready == nil then
  return { status = "Progressing", message = "waiting for the operator" }
end
-- What is said of an older spec says nothing of this one.
local spoken_of = ready.observedGeneration or status.observedGeneration
if generation ~= nil and spoken_of ~= nil and spoken_of < generation then
  return { status = "Progressing", message = "waiting for the operator to see the change" }
end

-- The instances of a Pipeline are listed worst first: is one of them really in trouble, or are they only starting?
local function troubled()
  local instances = status.instances
  if instances == nil or instances[1] == nil then
    return true
  end
  return instances[1].state ~= "Starting" and instances[1].state ~= "Draining"
end

local worst = { status = "Healthy", message = ready.message }
local weight = { Healthy = 0, Suspended = 1, Progressing = 2, Degraded = 3 }
local function found(health, condition)
  if weight[health] > weight[worst.status] then
    worst = { status = health, message = condition.type .. ": " .. (condition.message or condition.reason or "") }
  end
end

local function judge(condition)
  if condition.status == "True" then
    return
  end
  if condition.status == "Unknown" then
    found("Progressing", condition)
  elseif suspended[condition.reason] then
    found("Suspended", condition)
  elseif progressing[condition.reason] or (starting[condition.reason] and not troubled()) then
    found("Progressing", condition)
  elseif resting[condition.reason] == nil then
    found("Degraded", condition)
  end
end

judge(ready)
if ready.status ~= "True" then
  -- What is not rolled out explains the rest.
  return worst
end
for _, condition in ipairs(status.conditions) do
  if condition.type ~= "Ready" then
    judge(condition)
  end
end
return worst
